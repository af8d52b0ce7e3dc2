"""The command that gets data, as a user types it; downloads come from a server of the test's."""

import functools
import hashlib
import http.server
import io
import os
import random
import re
import socket
import subprocess
import sys
import tarfile
import threading
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

import prepare_data  # noqa: E402
from _download import DownloadError, fetch, unpack  # noqa: E402

YEARS = {('2007', 'trainval'): '2007', ('2007', 'test'): '2007-test', ('2012', 'trainval'): '2012'}


def command(*args, cwd):
    """Exit code, output and error output of ``prepare_data.py ARGS``."""
    tool = ROOT / 'tools' / 'prepare_data.py'
    done = subprocess.run(
        [sys.executable, str(tool), *map(str, args)],
        cwd=cwd, capture_output=True, text=True, timeout=200,
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr


def files(tree):
    return {p.relative_to(tree): p.read_bytes() for p in tree.rglob('*') if p.is_file()}


# ------------------------------------------------------------------------------------ shapes


@pytest.fixture(scope='module')
def drawn(tmp_path_factory):
    folder = tmp_path_factory.mktemp('drawn')
    code, output, error = command('shapes', 'data/shapes', '--train', 5, '--test', 2, cwd=folder)
    assert (code, error) == (0, '')
    return folder / 'data' / 'shapes', output


def test_shapes_are_drawn_as_the_library_draws_them(drawn, tmp_path):
    from ssd_plugin.datasets.shapes import write_voc_shapes

    tree, output = drawn
    assert files(tree) == files(write_voc_shapes(tmp_path, 5, 2, seed=0))
    assert 'data/shapes' in output and '100%' in output
    assert 'python tools/train.py configs/demo_shapes.py' in output


def test_a_complete_tree_is_left_alone(drawn):
    tree, _ = drawn
    image = tree / 'JPEGImages' / '000001.jpg'
    drawn_at = image.stat().st_mtime_ns
    code, output, error = command('shapes', tree, '--train', 5, '--test', 2, cwd=tree)
    assert (code, error) == (0, '')
    assert 'complete already' in output and len(output.splitlines()) == 1
    assert image.stat().st_mtime_ns == drawn_at


def test_other_shapes_need_overwrite(drawn, tmp_path):
    tree = tmp_path / 'shapes'
    arguments = ('shapes', tree, '--train', 2, '--test', 1)
    assert command(*arguments, cwd=tmp_path)[0] == 0
    before = files(tree)
    code, _, error = command(*arguments, '--seed', 1, cwd=tmp_path)
    assert code == 1 and '--overwrite' in error and len(error.splitlines()) == 1
    assert files(tree) == before
    assert command(*arguments, '--seed', 1, '--overwrite', cwd=tmp_path)[0] == 0
    assert files(tree).keys() == before.keys() and files(tree) != before


def test_an_interrupted_tree_is_drawn_to_its_end(tmp_path):
    arguments = ('shapes', tmp_path / 'shapes', '--train', 3, '--test', 1)
    assert command(*arguments, cwd=tmp_path)[0] == 0
    complete = files(tmp_path / 'shapes')
    for gone in ('ImageSets/Main/test.txt', 'JPEGImages/000003.jpg'):
        (tmp_path / 'shapes' / gone).unlink()
        assert command(*arguments, cwd=tmp_path)[0] == 0
        assert files(tmp_path / 'shapes') == complete


@pytest.mark.parametrize('options', [[], ['--overwrite']])
def test_a_folder_with_other_files_is_refused(options, tmp_path):
    (tmp_path / 'JPEGImages').mkdir()
    (tmp_path / 'JPEGImages' / '000001.jpg').write_text('mine')
    code, _, error = command('shapes', tmp_path, *options, cwd=tmp_path)
    assert code == 1 and 'holds other files' in error and len(error.splitlines()) == 1
    assert list(files(tmp_path).values()) == [b'mine']


@pytest.mark.parametrize('what', ['shapes', 'voc', 'coco'])
def test_a_folder_that_cannot_be_made_ends_in_one_line(what, tmp_path):
    (tmp_path / 'data').write_text('a file where a folder should be')
    code, _, error = command(what, 'data', cwd=tmp_path)
    assert code == 1 and len(error.splitlines()) == 1 and 'data' in error


@pytest.mark.parametrize(
    'args', [[], ['shapes'], ['shapes', 'x', '--train', '-1'], ['imagenet', 'x']]
)
def test_what_the_command_does_not_know_is_a_usage_error(args, tmp_path):
    code, _, error = command(*args, cwd=tmp_path)
    assert code == 2 and 'usage:' in error
    assert not list(tmp_path.iterdir())


def test_drawing_imports_nothing_heavy(tmp_path):
    (tmp_path / 'heavy').mkdir()
    for name in ('torch', 'mmdet', 'mmengine'):
        (tmp_path / 'heavy' / f'{name}.py').write_text('raise RuntimeError("imported")')
    tool = ROOT / 'tools' / 'prepare_data.py'
    done = subprocess.run(
        [sys.executable, tool, 'shapes', 'out', '--train', '1', '--test', '1'],
        cwd=tmp_path, env=dict(os.environ, PYTHONPATH=str(tmp_path / 'heavy')), timeout=200,
    )  # fmt: skip
    assert done.returncode == 0


# --------------------------------------------------------------------------------- downloads


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    """Serves a folder, without ranges, and keeps the paths asked for, in order."""

    def log_message(self, *args):
        if self.path not in self.server.asked:
            self.server.asked.append(self.path)


class RangeHandler(QuietHandler):
    """Serves ranges too, keeps those asked for, and breaks connections off as the test says."""

    def do_GET(self):
        content = (self.server.folder / self.path.lstrip('/')).read_bytes()
        asked = self.headers.get('Range')
        start = int(re.fullmatch(r'bytes=(\d+)-', asked)[1]) if asked else 0
        self.server.ranges.append(start)
        if start >= len(content):
            self.send_error(416)
            return
        self.send_response(206 if asked else 200)
        if asked:
            first = start + self.server.shift
            self.send_header('Content-Range', f'bytes {first}-{len(content) - 1}/{len(content)}')
        self.send_header('Content-Length', str(len(content) - start))
        self.end_headers()
        limit = self.server.breaks.pop(0) if self.server.breaks else len(content)
        self.wfile.write(content[start : start + limit])
        self.wfile.flush()
        self.connection.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def server(tmp_path, request):
    (tmp_path / 'served').mkdir()
    kind = getattr(request, 'param', QuietHandler)
    handler = functools.partial(kind, directory=str(tmp_path / 'served'))
    with http.server.ThreadingHTTPServer(('127.0.0.1', 0), handler) as server:
        server.asked, server.folder = [], tmp_path / 'served'
        server.ranges, server.breaks, server.shift = [], [], 0
        server.url = f'http://127.0.0.1:{server.server_port}'
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def md5(path):
    return hashlib.md5(path.read_bytes()).hexdigest()


def voc_archive(path, year, split, names):
    """A tar of a small VOC tree: its list, images and annotations, without their contents."""
    tree = path.with_suffix('') / 'VOCdevkit' / f'VOC{year}'
    lists = tree / 'ImageSets' / 'Main'
    for folder in (tree / 'JPEGImages', tree / 'Annotations', lists):
        folder.mkdir(parents=True)
    (lists / f'{split}.txt').write_text(''.join(f'{name}\n' for name in names))
    for name in names:
        (tree / 'JPEGImages' / f'{name}.jpg').write_bytes(b'image')
        (tree / 'Annotations' / f'{name}.xml').write_text('<annotation/>')
    with tarfile.open(path, 'w') as tar:
        tar.add(tree.parent, 'VOCdevkit')


@pytest.fixture
def voc_server(server, monkeypatch):
    """Torchvision's addresses of VOC, replaced by small archives on this machine."""
    from torchvision.datasets import voc

    for number, ((year, split), key) in enumerate(YEARS.items()):
        archive = server.folder / f'{key}.tar'
        voc_archive(archive, year, split, [f'{number}0', f'{number}1'])
        entry = dict(
            url=f'{server.url}/{archive.name}',
            filename=archive.name,
            md5=md5(archive),
            base_dir=f'VOCdevkit/VOC{year}',
        )
        monkeypatch.setitem(voc.DATASET_YEAR_DICT, key, entry)
    return server


def run_here(monkeypatch, *args):
    monkeypatch.setattr(sys, 'argv', ['prepare_data.py', *map(str, args)])
    prepare_data.main()


def stops_with(monkeypatch, *args):
    """The message, one line, with which the command ends; a text is exit code 1."""
    with pytest.raises(SystemExit) as caught:
        run_here(monkeypatch, *args)
    assert isinstance(caught.value.code, str) and '\n' not in caught.value.code
    return caught.value.code


def test_voc_is_downloaded_and_unpacked_where_the_configs_read_it(
    voc_server, monkeypatch, tmp_path, capsys
):
    run_here(monkeypatch, 'voc', tmp_path / 'data')
    devkit = tmp_path / 'data' / 'VOCdevkit'
    for number, (year, split) in enumerate(YEARS):
        tree = devkit / f'VOC{year}'
        listed = (tree / 'ImageSets' / 'Main' / f'{split}.txt').read_text().split()
        assert listed == [f'{number}0', f'{number}1']
        for name in listed:
            assert (tree / 'JPEGImages' / f'{name}.jpg').read_bytes() == b'image'
            assert (tree / 'Annotations' / f'{name}.xml').is_file()
    assert voc_server.asked == ['/2007.tar', '/2007-test.tar', '/2012.tar']
    output = capsys.readouterr().out
    assert str(devkit) in output and 'python tools/train.py configs/ssd300_voc.py' in output


def test_what_is_there_is_not_downloaded_again(voc_server, monkeypatch, tmp_path, capsys):
    run_here(monkeypatch, 'voc', tmp_path / 'data')
    for archive in (tmp_path / 'data').glob('*.tar'):
        archive.unlink()  # as the command says they may be
    (tmp_path / 'data/VOCdevkit/VOC2007/Annotations/11.xml').unlink()
    voc_server.asked.clear()
    run_here(monkeypatch, 'voc', tmp_path / 'data')
    assert voc_server.asked == ['/2007-test.tar']
    assert capsys.readouterr().out.count('is there already') == 2
    assert (tmp_path / 'data/VOCdevkit/VOC2007/Annotations/11.xml').is_file()


def test_a_wrong_checksum_ends_in_one_line(voc_server, monkeypatch, tmp_path):
    with open(voc_server.folder / '2007-test.tar', 'ab') as archive:
        archive.write(b'one byte more')
    message = stops_with(monkeypatch, 'voc', tmp_path / 'data')
    assert 'VOC2007 test' in message and 'corrupted' in message
    assert not (tmp_path / 'data/VOCdevkit/VOC2007/ImageSets/Main/test.txt').exists()
    assert not list((tmp_path / 'data').glob('2007-test.tar*')), 'it could not be got again'


def test_no_network_ends_in_one_line(server, monkeypatch, tmp_path):
    from torchvision.datasets import voc

    closed = dict(voc.DATASET_YEAR_DICT['2007'], url=f'{server.url}/not-there.tar')
    monkeypatch.setitem(voc.DATASET_YEAR_DICT, '2007', closed)
    assert '404' in stops_with(monkeypatch, 'voc', tmp_path / 'data')
    monkeypatch.setattr(prepare_data, 'COCO_URL', 'http://127.0.0.1:1')  # nothing listens there
    assert 'refused' in stops_with(monkeypatch, 'coco', tmp_path / 'data')


def test_coco_is_downloaded_and_unpacked(server, monkeypatch, tmp_path, capsys):
    parts = []
    for folder, path in (('train2017', 'zips/train.zip'), ('annotations', 'annotations/ann.zip')):
        archive = server.folder / path
        archive.parent.mkdir()
        with zipfile.ZipFile(archive, 'w') as file:
            file.writestr(f'{folder}/one', folder)
            file.writestr(f'{folder}/two', folder)
        parts.append((folder, 2, path, md5(archive)))
    monkeypatch.setattr(prepare_data, 'COCO', tuple(parts))
    monkeypatch.setattr(prepare_data, 'COCO_URL', server.url)
    run_here(monkeypatch, 'coco', tmp_path / 'coco')
    for folder in ('train2017', 'annotations'):
        assert (tmp_path / 'coco' / folder / 'two').read_text() == folder
    assert 'python tools/train.py configs/ssd300_coco.py' in capsys.readouterr().out

    (tmp_path / 'coco' / 'annotations' / 'two').unlink()
    (tmp_path / 'coco' / 'ann.zip').unlink()
    server.asked.clear()
    run_here(monkeypatch, 'coco', tmp_path / 'coco')
    assert server.asked == ['/annotations/ann.zip']


def test_the_addresses_are_those_of_the_data_sets_authors():
    assert prepare_data.COCO_URL == 'http://images.cocodataset.org'
    assert [archive for _, _, archive, _ in prepare_data.COCO] == [
        'zips/train2017.zip',
        'zips/val2017.zip',
        'annotations/annotations_trainval2017.zip',
    ]
    assert all(len(bytes.fromhex(digest)) == 16 for *_, digest in prepare_data.COCO)


# ---------------------------------------------------------------------- downloads that break

CONTENT = random.Random(0).randbytes(300_000)
with_ranges = pytest.mark.parametrize('server', [RangeHandler], indirect=True)


def quiet(doing, done, total):
    """Progress that nobody looks at."""


def get(server, tmp_path):
    """Fetch a file; what is there afterwards, by name."""
    (server.folder / 'file').write_bytes(CONTENT)
    folder = tmp_path / 'got'
    folder.mkdir(exist_ok=True)
    try:
        fetch(f'{server.url}/file', folder / 'file', md5(server.folder / 'file'), quiet)
    finally:
        left = {path.name: path.read_bytes() for path in folder.iterdir()}
    return left


@with_ranges
def test_a_download_that_breaks_goes_on_where_it_broke(server, tmp_path):
    server.breaks = [1000, 100_000, 5]
    assert get(server, tmp_path) == dict(file=CONTENT)
    assert server.ranges == [0, 1000, 101_000, 101_005]


@with_ranges
def test_what_an_earlier_run_left_is_gone_on_with(server, tmp_path):
    (tmp_path / 'got').mkdir()
    (tmp_path / 'got' / 'file.part').write_bytes(CONTENT[:70_000])
    assert get(server, tmp_path) == dict(file=CONTENT)
    assert server.ranges == [70_000]
    assert get(server, tmp_path) == dict(file=CONTENT)
    assert server.ranges == [70_000], 'asked for what is there'


@with_ranges
def test_a_connection_that_brings_nothing_ends_it_for_now(server, tmp_path):
    server.breaks = [1000, 0]
    with pytest.raises(ConnectionError, match='broke at 1000 of 300000 bytes'):
        get(server, tmp_path)
    assert (tmp_path / 'got' / 'file.part').read_bytes() == CONTENT[:1000]
    assert get(server, tmp_path) == dict(file=CONTENT)
    assert server.ranges == [0, 1000, 1000]


@with_ranges
def test_a_download_that_is_complete_but_for_its_name(server, tmp_path):
    (tmp_path / 'got').mkdir()
    (tmp_path / 'got' / 'file.part').write_bytes(CONTENT)
    assert get(server, tmp_path) == dict(file=CONTENT)


def test_a_server_without_ranges_sends_all_of_it(server, tmp_path):
    (tmp_path / 'got').mkdir()
    (tmp_path / 'got' / 'file.part').write_bytes(b'x' * 70_000)
    assert get(server, tmp_path) == dict(file=CONTENT)


@with_ranges
@pytest.mark.parametrize('left', [b'of another file', CONTENT + b'more'])
def test_what_turns_out_wrong_is_deleted(left, server, tmp_path):
    (tmp_path / 'got').mkdir()
    (tmp_path / 'got' / 'file.part').write_bytes(left)
    with pytest.raises(DownloadError, match='is corrupted: its MD5 is .*, not'):
        get(server, tmp_path)
    assert not list((tmp_path / 'got').iterdir())
    assert get(server, tmp_path) == dict(file=CONTENT)


@with_ranges
def test_another_range_than_asked_for_is_not_appended(server, tmp_path):
    (tmp_path / 'got').mkdir()
    (tmp_path / 'got' / 'file.part').write_bytes(CONTENT[:1000])
    server.shift = 5
    with pytest.raises(DownloadError, match='from 1000, the server sends bytes 1005'):
        get(server, tmp_path)
    assert (tmp_path / 'got' / 'file.part').read_bytes() == CONTENT[:1000]


def test_a_file_of_that_name_that_is_another_is_replaced(server, tmp_path):
    (tmp_path / 'got').mkdir()
    (tmp_path / 'got' / 'file').write_bytes(b'another')
    assert get(server, tmp_path) == dict(file=CONTENT)


def test_progress_is_told_of_each_step(server, tmp_path):
    archive = server.folder / 'file.zip'
    with zipfile.ZipFile(archive, 'w') as file:
        file.writestr('folder/one', CONTENT)
        file.writestr('folder/two', b'')
    told = {}
    fetch(
        f'{server.url}/file.zip', tmp_path / 'file.zip', md5(archive),
        lambda doing, done, total: told.__setitem__(doing, (done, total)),
    )  # fmt: skip
    unpack(tmp_path / 'file.zip', tmp_path, lambda *step: told.__setitem__(step[0], step[1:]))
    size = archive.stat().st_size
    assert told == dict(
        downloading=(size, size), checking=(size, size), unpacking=(len(CONTENT), len(CONTENT))
    )


@with_ranges
def test_a_command_that_was_stopped_goes_on(server, monkeypatch, tmp_path, capsys):
    archive = server.folder / 'ann.zip'
    with zipfile.ZipFile(archive, 'w') as file:
        file.writestr('annotations/one', CONTENT)
    monkeypatch.setattr(prepare_data, 'COCO', (('annotations', 1, 'ann.zip', md5(archive)),))
    monkeypatch.setattr(prepare_data, 'COCO_URL', server.url)
    server.breaks = [1000, 0]
    message = stops_with(monkeypatch, 'coco', tmp_path / 'coco')
    assert 'COCO annotations' in message and 'it goes on where it stopped' in message
    run_here(monkeypatch, 'coco', tmp_path / 'coco')
    assert (tmp_path / 'coco' / 'annotations' / 'one').read_bytes() == CONTENT
    assert server.ranges == [0, 1000, 1000]
    assert 'COCO annotations: unpacking' in capsys.readouterr().out


# ---------------------------------------------------------------------- archives with a catch


def tar_with(path, *members):
    with tarfile.open(path, 'w') as tar:
        tar.addfile(tarfile.TarInfo('good'), io.BytesIO())
        for member in members:
            tar.addfile(member, io.BytesIO())


def link(name, target, kind):
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, target
    return member


CATCHES = {
    'upwards': [tarfile.TarInfo('folder/../../bad')],
    'absolute': [tarfile.TarInfo('/bad')],
    'upwards on Windows': [tarfile.TarInfo('folder\\..\\..\\bad')],
    'absolute on Windows': [tarfile.TarInfo('C:\\bad')],
    'a link and a file behind it': [
        link('folder', '..', tarfile.SYMTYPE), tarfile.TarInfo('folder/bad')
    ],
    'a link to elsewhere': [link('bad', '/etc/passwd', tarfile.SYMTYPE)],
    'a link within': [link('bad', 'good', tarfile.SYMTYPE)],
    'a hard link': [link('bad', '../served', tarfile.LNKTYPE)],
    'a hard link within': [link('bad', 'good', tarfile.LNKTYPE)],
    'a device': [link('bad', '', tarfile.CHRTYPE)],
    'a disk': [link('bad', '', tarfile.BLKTYPE)],
    'a pipe': [link('bad', '', tarfile.FIFOTYPE)],
}  # fmt: skip


@pytest.mark.parametrize('case', CATCHES)
def test_a_tar_that_would_write_elsewhere_is_refused_whole(case, tmp_path):
    tar_with(tmp_path / 'bad.tar', *CATCHES[case])
    (tmp_path / 'out').mkdir()
    with pytest.raises(DownloadError, match=r'bad\.tar is not unpacked: '):
        unpack(tmp_path / 'bad.tar', tmp_path / 'out', quiet)
    assert sorted(path.name for path in tmp_path.rglob('*')) == ['bad.tar', 'out']


@pytest.mark.parametrize(
    'name', ['../bad', 'a/../../bad', '/bad', 'C:/bad', 'a\\..\\..\\bad', '\\\\server\\bad']
)
def test_a_zip_that_would_write_elsewhere_is_refused_whole(name, tmp_path):
    with zipfile.ZipFile(tmp_path / 'bad.zip', 'w') as file:
        file.writestr('good', '')
        file.writestr(name, '')
    (tmp_path / 'out').mkdir()
    with pytest.raises(DownloadError, match='leads out of the folder'):
        unpack(tmp_path / 'bad.zip', tmp_path / 'out', quiet)
    assert not list((tmp_path / 'out').iterdir())


def test_a_link_in_a_zip_is_unpacked_as_the_text_that_it_is(tmp_path):
    """So a file behind it has no folder to go to."""
    info = zipfile.ZipInfo('folder')
    info.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / 'a.zip', 'w') as file:
        file.writestr(info, '..')
        file.writestr('folder/bad', '')
    (tmp_path / 'out').mkdir()
    with pytest.raises(OSError):
        unpack(tmp_path / 'a.zip', tmp_path / 'out', quiet)
    assert (tmp_path / 'out' / 'folder').read_text() == '..'
    assert not (tmp_path / 'out' / 'folder').is_symlink()
    assert not (tmp_path / 'bad').exists()


def test_a_folder_may_be_a_link_of_the_user_s(tmp_path):
    """To a disk with more room, say."""
    (tmp_path / 'disk').mkdir()
    (tmp_path / 'out').mkdir()
    (tmp_path / 'out' / 'folder').symlink_to(tmp_path / 'disk')
    tar_with(tmp_path / 'a.tar', tarfile.TarInfo('folder/one'))
    unpack(tmp_path / 'a.tar', tmp_path / 'out', quiet)
    assert (tmp_path / 'disk' / 'one').is_file()


def test_a_broken_archive_ends_in_one_line(voc_server, monkeypatch, tmp_path):
    from torchvision.datasets import voc

    archive = voc_server.folder / '2007.tar'
    archive.write_bytes(b'no tar')
    monkeypatch.setitem(voc.DATASET_YEAR_DICT['2007'], 'md5', md5(archive))
    assert 'VOC2007 trainval' in stops_with(monkeypatch, 'voc', tmp_path / 'data')
