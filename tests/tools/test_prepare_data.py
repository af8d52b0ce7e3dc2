"""The command that gets data; downloads come from a server of the test's own."""

import hashlib
import http.server
import io
import random
import re
import sys
import tarfile
import threading
import zipfile
from pathlib import Path

import prepare_data
import pytest
from _download import DownloadError, fetch, unpack
from torchvision.datasets.voc import DATASET_YEAR_DICT

from ssd_plugin.datasets.shapes import write_voc_shapes
from tests.support.commands import ROOT, run

YEARS = {('2007', 'trainval'): '2007', ('2007', 'test'): '2007-test', ('2012', 'trainval'): '2012'}


def files(tree):
    return {p.relative_to(tree): p.read_bytes() for p in tree.rglob('*') if p.is_file()}


@pytest.fixture
def prepare(monkeypatch, capsys, tmp_path):
    """Runs the command in this process and an empty directory; answers what it prints."""
    monkeypatch.chdir(tmp_path)

    def call(*args):
        monkeypatch.setattr(sys, 'argv', ['prepare_data.py', *map(str, args)])
        prepare_data.main()
        return capsys.readouterr().out

    return call


@pytest.fixture
def stops_with(prepare):
    """The message, one line, with which the command ends; its exit code then is 1."""

    def call(*args):
        with pytest.raises(SystemExit) as caught:
            prepare(*args)
        assert isinstance(caught.value.code, str) and '\n' not in caught.value.code
        return caught.value.code

    return call


def test_shapes_are_drawn_as_the_library_draws_them(prepare, tmp_path):
    output = prepare('shapes', 'data/shapes', '--train', 5, '--test', 2)
    assert files(tmp_path / 'data/shapes') == files(write_voc_shapes(tmp_path / 'b', 5, 2, seed=0))
    assert 'data/shapes' in output and '100%' in output
    assert 'python tools/train.py configs/demo_shapes.py' in output


def test_a_complete_tree_is_left_alone_and_an_interrupted_one_is_finished(prepare, tmp_path):
    arguments = ('shapes', write_voc_shapes(tmp_path, 3, 1), '--train', 3, '--test', 1)
    complete, image = files(tmp_path), tmp_path / 'JPEGImages/000003.jpg'
    drawn_at = image.stat().st_mtime_ns
    output = prepare(*arguments)
    assert 'complete already' in output and len(output.splitlines()) == 1
    assert image.stat().st_mtime_ns == drawn_at
    for gone in (tmp_path / 'ImageSets/Main/test.txt', image):
        gone.unlink()
        prepare(*arguments)
        assert files(tmp_path) == complete


def test_other_shapes_need_overwrite(prepare, stops_with, tmp_path):
    arguments = ('shapes', write_voc_shapes(tmp_path, 2, 1), '--train', 2, '--test', 1)
    before = files(tmp_path)
    assert '--overwrite' in stops_with(*arguments, '--seed', 1)
    assert files(tmp_path) == before
    prepare(*arguments, '--seed', 1, '--overwrite')
    assert files(tmp_path).keys() == before.keys() and files(tmp_path) != before


@pytest.mark.parametrize('options', [[], ['--overwrite']])
def test_a_folder_with_other_files_is_refused(options, stops_with, tmp_path):
    (tmp_path / 'JPEGImages').mkdir()
    (tmp_path / 'JPEGImages' / '000001.jpg').write_text('mine')
    assert 'holds other files' in stops_with('shapes', tmp_path, *options)
    assert list(files(tmp_path).values()) == [b'mine']


def test_a_folder_that_cannot_be_made_ends_in_one_line(stops_with, tmp_path):
    (tmp_path / 'data').write_text('a file where a folder should be')
    for what in ('shapes', 'voc', 'coco'):
        assert 'data' in stops_with(what, tmp_path / 'data')


def test_what_the_command_does_not_know_is_a_usage_error(prepare, tmp_path):
    for args in ([], ['shapes'], ['shapes', 'x', '--train', '-1'], ['imagenet', 'x']):
        with pytest.raises(SystemExit, match='2'):
            prepare(*args)
        assert not list(tmp_path.iterdir())


def test_mistakes_are_told_before_pytorch_is_imported(tmp_path):
    for name in ('torch', 'mmdet'):
        (tmp_path / f'{name}.py').write_text('raise RuntimeError("imported")')
    mistake = [ROOT / 'tools/prepare_data.py', 'shapes', 'out', '--train', '-1']
    output = run(*mistake, cwd=tmp_path, path=[tmp_path], fails=True)
    assert 'usage:' in output and 'imported' not in output


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves files or the rest of them, and breaks connections off as the test says."""

    def do_GET(self):
        server, path = self.server, self.server.folder / self.path.lstrip('/')
        if not path.is_file():
            self.send_error(404)
            return
        content = path.read_bytes()
        asked = self.headers.get('Range') if server.has_ranges else None
        start = int(re.fullmatch(r'bytes=(\d+)-', asked)[1]) if asked else 0
        server.ranges.append(start)
        server.asked[self.path] = True
        if start >= len(content):
            self.send_error(416)
            return
        self.send_response(206 if asked else 200)
        if asked:
            first, last = start + server.shift, len(content) - 1
            self.send_header('Content-Range', f'bytes {first}-{last}/{len(content)}')
        self.send_header('Content-Length', str(len(content) - start))
        self.end_headers()
        limit = server.breaks.pop(0) if server.breaks else len(content)
        self.wfile.write(content[start : start + limit])

    def log_message(self, *args):
        """Print nothing."""


@pytest.fixture
def server(tmp_path):
    with http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler) as server:
        server.folder = tmp_path / 'served'
        server.folder.mkdir()
        server.url = f'http://127.0.0.1:{server.server_port}'
        server.asked, server.ranges = {}, []  # paths, and the first bytes of them, in order
        server.has_ranges, server.shift = True, 0
        server.breaks = []  # after so many bytes
        # By default the server looks twice a second whether it is to stop.
        thread = threading.Thread(target=server.serve_forever, args=[0.01])
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def md5(path):
    return hashlib.md5(path.read_bytes()).hexdigest()


def pack(archive, contents):
    """Write a zip or a tar of files, given by name; the digest of it."""
    archive.parent.mkdir(exist_ok=True)
    if archive.suffix == '.zip':
        with zipfile.ZipFile(archive, 'w') as file:
            for name, content in contents.items():
                file.writestr(name, content)
    else:
        with tarfile.open(archive, 'w') as file:
            for info, content in contents.items():
                info = member(info) if isinstance(info, str) else info
                info.size = len(content)
                file.addfile(info, io.BytesIO(content))
    return md5(archive)


def member(name, kind=tarfile.REGTYPE, target=''):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


@pytest.fixture
def voc_server(server, monkeypatch):
    """Torchvision's addresses of VOC, replaced by tars of small trees on this machine."""
    server.contents = {}
    for number, ((year, split), key) in enumerate(YEARS.items()):
        tree, names = f'VOCdevkit/VOC{year}', [f'{number}0', f'{number}1']
        contents = {f'{tree}/ImageSets/Main/{split}.txt': '\n'.join(names).encode()}
        contents |= {f'{tree}/JPEGImages/{name}.jpg': b'image' for name in names}
        contents |= {f'{tree}/Annotations/{name}.xml': b'<annotation/>' for name in names}
        server.contents |= {Path(path): content for path, content in contents.items()}
        digest = pack(server.folder / f'{key}.tar', contents)
        entry = dict(url=f'{server.url}/{key}.tar', filename=f'{key}.tar', md5=digest)
        monkeypatch.setitem(DATASET_YEAR_DICT, key, entry)
    return server


@pytest.fixture
def coco_server(server, monkeypatch):
    """COCO's addresses, replaced by zips with two small files each."""
    parts = []
    for folder, path in (('train2017', 'zips/train.zip'), ('annotations', 'annotations/ann.zip')):
        contents = {f'{folder}/one': folder, f'{folder}/two': folder}
        parts.append((folder, 2, path, pack(server.folder / path, contents)))
    monkeypatch.setattr(prepare_data, 'COCO', tuple(parts))
    monkeypatch.setattr(prepare_data, 'COCO_URL', server.url)
    return server


def test_voc_is_downloaded_and_unpacked_where_the_configs_read_it(voc_server, prepare, tmp_path):
    output, data = prepare('voc', tmp_path / 'data'), tmp_path / 'data'
    assert str(data / 'VOCdevkit') in output
    assert 'python tools/train.py configs/ssd300_voc.py' in output
    assert list(voc_server.asked) == ['/2007.tar', '/2007-test.tar', '/2012.tar']
    for archive in data.glob('*.tar'):
        archive.unlink()  # as the command says they may be
    assert files(data) == voc_server.contents

    (data / 'VOCdevkit/VOC2007/Annotations/11.xml').unlink()
    voc_server.asked.clear()
    assert prepare('voc', data).count('is there already') == 2
    assert list(voc_server.asked) == ['/2007-test.tar'], 'what is there is downloaded again'
    assert files(data).items() >= voc_server.contents.items()


def test_a_failed_download_ends_in_one_line(voc_server, monkeypatch, stops_with, tmp_path):
    monkeypatch.setattr(prepare_data, 'COCO_URL', 'http://127.0.0.1:1')  # nothing listens there
    assert 'refused' in stops_with('coco', tmp_path / 'coco')

    archive, data = voc_server.folder / '2007-test.tar', tmp_path / 'data'
    archive.unlink()
    for said in ('404', 'corrupted', 'VOC2007 test'):
        message = stops_with('voc', data)
        assert 'VOC2007 test' in message and said in message
        assert not (data / 'VOCdevkit/VOC2007/ImageSets/Main/test.txt').exists()
        left = {path.name for path in data.glob('2007-test.tar*')}  # it can be downloaded again
        assert left == (set() if said != 'VOC2007 test' else {archive.name})
        if archive.exists():  # the next time it is as it should be, and no tar
            monkeypatch.setitem(DATASET_YEAR_DICT['2007-test'], 'md5', md5(archive))
        archive.write_bytes(b'no tar')


def test_coco_is_downloaded_and_unpacked(coco_server, prepare, tmp_path):
    output = prepare('coco', tmp_path / 'coco')
    assert 'python tools/train.py configs/ssd300_coco.py' in output
    for folder in ('train2017', 'annotations'):
        assert (tmp_path / 'coco' / folder / 'two').read_text() == folder

    (tmp_path / 'coco' / 'annotations' / 'two').unlink()
    (tmp_path / 'coco' / 'ann.zip').unlink()
    coco_server.asked.clear()
    prepare('coco', tmp_path / 'coco')
    assert list(coco_server.asked) == ['/annotations/ann.zip']


def test_the_addresses_are_those_of_the_data_sets_authors():
    assert prepare_data.COCO_URL == 'http://images.cocodataset.org'
    archives = [
        'zips/train2017.zip',
        'zips/val2017.zip',
        'annotations/annotations_trainval2017.zip',
    ]
    assert [archive for _, _, archive, _ in prepare_data.COCO] == archives
    assert all(len(bytes.fromhex(digest)) == 16 for *_, digest in prepare_data.COCO)


CONTENT = random.Random(0).randbytes(300_000)


def quiet(doing, done, total):
    """Progress that nobody looks at."""


@pytest.fixture(name='got')
def folder_to_fetch_to(tmp_path):
    (tmp_path / 'got').mkdir()
    return tmp_path / 'got'


def get(server, got):
    """Fetch a file; what is there afterwards, by name."""
    (server.folder / 'file').write_bytes(CONTENT)
    fetch(f'{server.url}/file', got / 'file', hashlib.md5(CONTENT).hexdigest(), quiet)
    return {path.name: path.read_bytes() for path in got.iterdir()}


@pytest.mark.parametrize(
    'left, breaks, ranges',
    [
        (0, [1000, 100_000, 5], [0, 1000, 101_000, 101_005]),
        (70_000, [], [70_000]),
        (len(CONTENT), [], [len(CONTENT)]),
    ],
    ids=['broken connections', 'stopped earlier', 'complete but for its name'],
)
def test_a_download_continues_where_it_stopped(left, breaks, ranges, server, got):
    if left:
        (got / 'file.part').write_bytes(CONTENT[:left])
    server.breaks = breaks
    for _ in range(2):  # the second time, nothing is asked for
        assert get(server, got) == dict(file=CONTENT)
        assert server.ranges == ranges


def test_a_connection_that_brings_nothing_ends_it_for_now(server, got):
    server.breaks = [1000, 0]
    with pytest.raises(ConnectionError, match='broke at 1000 of 300000 bytes'):
        get(server, got)
    assert (got / 'file.part').read_bytes() == CONTENT[:1000]
    assert get(server, got) == dict(file=CONTENT)
    assert server.ranges == [0, 1000, 1000]


@pytest.mark.parametrize('left', ['file.part', 'file'])
def test_a_wrong_file_is_replaced_by_a_server_without_ranges(left, server, got):
    server.has_ranges = False
    (got / left).write_bytes(b'x' * 70_000)
    assert get(server, got) == dict(file=CONTENT)


@pytest.mark.parametrize('left', [b'of another file', CONTENT + b'more'])
def test_what_turns_out_wrong_is_deleted(left, server, got):
    (got / 'file.part').write_bytes(left)
    with pytest.raises(DownloadError, match='is corrupted: its MD5 is .*, not'):
        get(server, got)
    assert not list(got.iterdir())
    assert get(server, got) == dict(file=CONTENT)


def test_another_range_than_asked_for_is_not_appended(server, got):
    (got / 'file.part').write_bytes(CONTENT[:1000])
    server.shift = 5
    with pytest.raises(DownloadError, match='from 1000, the server sends bytes 1005'):
        get(server, got)
    assert (got / 'file.part').read_bytes() == CONTENT[:1000]


def test_progress_is_told_of_each_step(server, tmp_path):
    archive, told = server.folder / 'file.zip', {}
    digest = pack(archive, {'folder/one': CONTENT, 'folder/two': b''})

    def tell(doing, *done_and_total):
        told[doing] = done_and_total

    fetch(f'{server.url}/file.zip', tmp_path / 'file.zip', digest, tell)
    unpack(tmp_path / 'file.zip', tmp_path, tell)
    size, unpacked = (archive.stat().st_size,) * 2, (len(CONTENT),) * 2
    assert told == dict(downloading=size, checking=size, unpacking=unpacked)


def test_a_command_that_was_stopped_goes_on(coco_server, prepare, stops_with, tmp_path):
    coco_server.breaks = [100, 0]
    message = stops_with('coco', tmp_path / 'coco')
    assert 'COCO train2017' in message and 'it goes on where it stopped' in message
    assert 'COCO train2017: unpacking' in prepare('coco', tmp_path / 'coco')
    assert (tmp_path / 'coco' / 'train2017' / 'one').read_text() == 'train2017'
    assert coco_server.ranges == [0, 100, 100, 0]


@pytest.fixture
def out(tmp_path):
    """The folder that archives are unpacked to."""
    (tmp_path / 'out').mkdir()
    return tmp_path / 'out'


OUTSIDE = ('../bad', 'a/../../bad', '/bad', 'C:/bad')
OUTSIDE += ('C:\\bad', 'a\\..\\..\\bad', '\\\\server\\bad')
SPECIAL = {
    'a link and a file behind it': (member('folder', tarfile.SYMTYPE, '..'), member('folder/bad')),
    'a link to elsewhere': [member('bad', tarfile.SYMTYPE, '/etc/passwd')],
    'a link within': [member('bad', tarfile.SYMTYPE, 'good')],
    'a hard link': [member('bad', tarfile.LNKTYPE, '../served')],
    'a hard link within': [member('bad', tarfile.LNKTYPE, 'good')],
    'a device': [member('bad', tarfile.CHRTYPE)],
    'a disk': [member('bad', tarfile.BLKTYPE)],
    'a pipe': [member('bad', tarfile.FIFOTYPE)],
}
CATCHES = {
    f'{kind} {n}': (f'bad.{kind}', [n], 'leads out') for kind in ('zip', 'tar') for n in OUTSIDE
}
CATCHES |= {n: ('bad.tar', each, 'is neither a file nor a folder') for n, each in SPECIAL.items()}


@pytest.mark.parametrize('name, members, why', CATCHES.values(), ids=CATCHES)
def test_an_archive_that_would_write_elsewhere_is_refused_whole(name, members, why, tmp_path, out):
    pack(tmp_path / name, dict.fromkeys(['good', *members], b''))
    with pytest.raises(DownloadError, match=rf'{name} is not unpacked: .* {why}'):
        unpack(tmp_path / name, out, quiet)
    assert sorted(path.name for path in tmp_path.rglob('*')) == [name, 'out']


def test_a_link_in_a_zip_is_unpacked_as_the_text_that_it_is(tmp_path, out):
    """So a file behind it has no folder to go to."""
    info = zipfile.ZipInfo('folder')
    info.external_attr = 0o120777 << 16
    pack(tmp_path / 'a.zip', {info: '..', 'folder/bad': ''})
    with pytest.raises(OSError):
        unpack(tmp_path / 'a.zip', out, quiet)
    assert (out / 'folder').read_text() == '..'
    assert not (out / 'folder').is_symlink()
    assert not (tmp_path / 'bad').exists()


def test_a_folder_may_be_a_link_of_the_user_s(tmp_path, out):
    """To a disk with more room, say."""
    (tmp_path / 'disk').mkdir()
    (out / 'folder').symlink_to(tmp_path / 'disk')
    pack(tmp_path / 'a.tar', {'folder/one': b''})
    unpack(tmp_path / 'a.tar', out, quiet)
    assert (tmp_path / 'disk' / 'one').is_file()
