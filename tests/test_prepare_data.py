"""The command that gets data, as a user types it; downloads come from a server of the test's."""

import functools
import hashlib
import http.server
import subprocess
import sys
import tarfile
import threading
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT / 'tools'))

import prepare_data  # noqa: E402

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
    from ssd_plugin.shapes import write_voc_shapes

    tree, output = drawn
    assert files(tree) == files(write_voc_shapes(tmp_path, 5, 2, seed=0))
    assert 'data/shapes' in output and '100%' in output
    assert 'python tools/train.py configs/demo_shapes.py' in output


def test_a_complete_tree_is_left_alone(drawn):
    tree, _ = drawn
    picture = tree / 'JPEGImages' / '000001.jpg'
    drawn_at = picture.stat().st_mtime_ns
    code, output, error = command('shapes', tree, '--train', 5, '--test', 2, cwd=tree)
    assert (code, error) == (0, '')
    assert 'complete already' in output and len(output.splitlines()) == 1
    assert picture.stat().st_mtime_ns == drawn_at


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
    code = (
        'import sys, runpy; sys.path.insert(0, "heavy");'
        'sys.argv = ["prepare_data.py", "shapes", "out", "--train", "1", "--test", "1"];'
        f'runpy.run_path({str(ROOT / "tools" / "prepare_data.py")!r}, run_name="__main__")'
    )
    done = subprocess.run([sys.executable, '-c', code], cwd=tmp_path, timeout=200)
    assert done.returncode == 0


# --------------------------------------------------------------------------------- downloads


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    """Serves a folder and keeps the paths asked for, in order (torchvision asks for each twice)."""

    def log_message(self, *args):
        if self.path not in self.server.asked:
            self.server.asked.append(self.path)


@pytest.fixture
def server(tmp_path):
    (tmp_path / 'served').mkdir()
    handler = functools.partial(QuietHandler, directory=str(tmp_path / 'served'))
    with http.server.ThreadingHTTPServer(('127.0.0.1', 0), handler) as server:
        server.asked, server.folder = [], tmp_path / 'served'
        server.url = f'http://127.0.0.1:{server.server_port}'
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def md5(path):
    return hashlib.md5(path.read_bytes()).hexdigest()


def voc_archive(path, year, split, names):
    """A tar of a small VOC tree: its list, pictures and annotations, without their contents."""
    tree = path.with_suffix('') / 'VOCdevkit' / f'VOC{year}'
    lists = tree / 'ImageSets' / 'Main'
    for folder in (tree / 'JPEGImages', tree / 'Annotations', lists):
        folder.mkdir(parents=True)
    (lists / f'{split}.txt').write_text(''.join(f'{name}\n' for name in names))
    for name in names:
        (tree / 'JPEGImages' / f'{name}.jpg').write_bytes(b'picture')
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
            assert (tree / 'JPEGImages' / f'{name}.jpg').read_bytes() == b'picture'
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
