# `make demo` and `make test` set themselves up: they need Python 3.10 to 3.14 with venv, no more.

PY := .venv/bin/python
READY := .venv/ready
PACKAGES := --editable '.[lite,test,docs]' --constraint constraints.txt
DEMO := work_dirs/demo_shapes

.PHONY: demo test test-matrix mutation lint docs docs-serve clean

demo: $(READY)
	$(PY) tools/prepare_data.py shapes data/shapes
	$(PY) tools/train.py configs/demo_shapes.py --work-dir $(DEMO)
	$(PY) tools/test.py configs/demo_shapes.py "$$(cat $(DEMO)/last_checkpoint)" --work-dir $(DEMO)
	$(PY) tools/demo_report.py

test: $(READY)
	$(PY) -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile

# On the oldest and the newest versions: five times the tests, two of them after compiling mmcv.
# Needs Pythons 3.10, 3.12 and 3.13 on PATH and a C++ compiler.
test-matrix: $(READY)
	$(PY) -m tests.long.matrix

# Plants faults in the core, a sample of them one at a time: do the tests notice?
mutation: $(READY)
	$(PY) -m tests.long.mutation

lint: $(READY)
	$(PY) -m ruff check
	$(PY) -m ruff format --check
	.venv/bin/lint-imports --no-logo
	$(PY) -m mypy

# The documentation site, into site/; docs-serve shows it at http://127.0.0.1:8000.
docs: $(READY)
	NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs build --strict --quiet
	@echo 'The site is in site/index.html.'

docs-serve: $(READY)
	NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs serve

# uv takes a quarter of pip's time. Where it cannot work, behind a mirror for instance, pip does. With
# bytecode compiled once, imports take half the time where Python may not write any.
$(READY): setup.py pyproject.toml constraints.txt
	@$(FIND_PYTHON); test -x $(PY) || "$$python" -m venv .venv || { rm -rf .venv; exit 1; }
	@echo 'Installing PyTorch, MMDetection and ssd_plugin into .venv ...'
	@{ $(PY) -m pip install --quiet --disable-pip-version-check uv --constraint constraints.txt \
	    && $(PY) -m uv pip install --compile-bytecode --python $(PY) $(PACKAGES); } \
	  || { echo 'uv does not work here; installing with pip, which takes longer.'; \
	       $(PY) -m pip install $(PACKAGES); }
	@$(ENSURE_OPENCV)
	@touch $@

# The first Python that there are wheels of the pinned packages for.
define FIND_PYTHON
for python in python3 python3.13 python3.12 python3.11 python3.10 python3.14 none; do \
  "$$python" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 15))' 2>/dev/null \
    && break; \
done; \
test "$$python" != none || { echo 'No Python 3.10 to 3.14 here: install one, with venv.'; exit 1; }
endef

# opencv-python needs libGL, which a machine without a screen may lack.
define ENSURE_OPENCV
$(PY) -c 'import cv2' 2>/dev/null || { \
  echo 'No libGL for opencv-python here; installing opencv-python-headless in its place.'; \
  $(PY) -m pip uninstall --quiet --yes opencv-python; \
  $(PY) -m pip install --quiet opencv-python-headless --constraint constraints.txt; }
endef

clean:
	rm -rf .venv build site mutants *.egg-info data/shapes $(DEMO)
