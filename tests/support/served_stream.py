"""A stream of JPEGs over HTTP on this machine, as cheap cameras serve it, and a folder's files."""

import time
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from threading import Thread

import cv2
import numpy as np


def grey_jpeg(number, size=(96, 64)):
    """A frame that says by its grey which it is: 4 levels each, 50 different ones."""
    image = np.full((size[1], size[0], 3), 30 + 4 * (number % 50), np.uint8)
    return cv2.imencode('.jpg', image)[1].tobytes()


@contextmanager
def served_stream(lengths=(), interval=0.02):
    """The address of a stream.

    Each connection gets as many frames as its place in ``lengths`` says, none if that is 0, or
    frames without end when ``lengths`` is empty; after the last of them no connection gets any.
    """
    connections = iter(lengths) if lengths else count(10**9, 0)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            length = next(connections, 0)
            if not length:
                self.send_error(503)
                return
            self.send_response(200)
            self.send_header('Content-Type', 'multipart/x-mixed-replace; boundary=frame')
            self.end_headers()
            for number in range(length):
                jpeg = grey_jpeg(number)
                head = f'--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n'
                try:
                    self.wfile.write(head.encode() + jpeg + b'\r\n')
                except OSError:  # whoever looked has gone
                    return
                time.sleep(interval)

        def log_message(self, *_):
            pass

    with serve(Handler) as address:
        yield f'{address}/camera.mjpg'


@contextmanager
def served_folder(folder):
    """The address under which the files of a folder are."""

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    with serve(partial(Handler, directory=str(folder))) as address:
        yield address


@contextmanager
def serve(handler):
    """The address of a server on this machine."""
    server = ThreadingHTTPServer(('127.0.0.1', 0), handler)
    server.daemon_threads = True
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f'http://127.0.0.1:{server.server_port}'
    finally:
        server.shutdown()
        server.server_close()
