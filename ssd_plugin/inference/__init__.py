"""Detection on images, folders and videos."""
