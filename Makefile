# make book       build the site into book/_build/html
# make test       run every test, every notebook and the browser tests
# make notebooks  run the notebooks again, in place
# make records    make the records of training runs that are missing or old: on two cores 25 minutes for chapter 07's, three
#                 hours for chapter 08's, six for chapter 10's, five for chapter 11's, one for chapter 15's and four for chapter
#                 16's, which need MNIST, CIFAR-10, Fashion-MNIST, graphs and text in $JFB_DATA
# make timings    measure again the times that the chapters quote
# make benchmarks compare the package with a loop by hand and with TorchDEQ
# make work       copy the chapters into work/, for JupyterLab; what you have changed there stays
# make lab        make work, and open it in JupyterLab
# make plain      the chapters for Colab, VS Code or a code host, into book/_build/plain; REPOSITORY= is where they find the package
# make pdf        the whole book as book/_build/book.pdf, which takes a Chromium; make zip, the site, the notebooks and the PDF if made, in
#                 book/_build/jfb-book.zip, which needs no network
# make course     what a lecturer hands out: the site and the notebooks without solutions, those with them, and the slides, into
#                 book/course/_build, with student.zip and staff.zip; NBGRADER=7 adds the problem sheets for nbgrader, whose
#                 numbers the 7 draws
# make chapters   run the notebooks and compare what they print; make links, ask whether the addresses of other hosts still answer
# make serve      serve the built site on this machine
# make lint       check the format, the style and the types
# make clean      remove what was built; `rm -r .venv` removes the environment too
#
# Each sets up what it needs in .venv first, with the versions of constraints.txt. PYTHON names the interpreter to use;
# CONSTRAINTS= (nothing) takes the newest versions that pyproject.toml allows, and NBVAL=--nbval-lax then compares the
# notebooks' outputs less strictly.

PYTHON ?= python3
CONSTRAINTS ?= constraints.txt
NBVAL ?= --nbval
JOBS ?= 2
BIN := .venv/bin
PEERS = $(BIN)/python -m pip install --quiet $(CONSTRAINTS:%=--constraint %) --editable '.[dev,peers]'
NOTEBOOKS := $(wildcard book/*.ipynb)
# the files that take longest come first, so that no process waits at the end for another's long file
LONGEST := tests/test_site.py tests/test_training.py tests/test_jupyterlab.py tests/test_references.py $(NOTEBOOKS)
TESTS := $(LONGEST) $(filter-out $(LONGEST),$(wildcard tests/test_*.py))

# hundreds of processes import the same modules: they are to be compiled once, whatever the environment says
unexport PYTHONDONTWRITEBYTECODE

# SITE= is the public address of the site, for its sitemap, its Open Graph and its citation tags; without it there are none
export JFB_SITE := $(or $(SITE),$(JFB_SITE))

.PHONY: book test chapters notebooks records timings benchmarks work lab plain pdf zip course serve lint links clean

book: .venv/ready
	$(BIN)/jupyter-book build book -W -n --keep-going -q
	@echo "The book is at book/_build/html/index.html"

test: book .venv/nbgrader/ready
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(NBVAL) --nbval-current-env -n $(JOBS) --dist loadfile --no-loadscope-reorder \
	    $(TESTS)

# the notebooks alone, with whichever versions CONSTRAINTS and NBVAL say
chapters: .venv/ready
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(NBVAL) --nbval-current-env -n $(JOBS) --dist loadfile $(NOTEBOOKS)

notebooks: .venv/ready
	$(BIN)/python book/_ext/execute.py

records: .venv/ready
	$(BIN)/python -m jfb_tutorial reproduce digits --out book/records
	$(BIN)/python tests/benchmarks/measure_parity.py
	$(BIN)/python tests/benchmarks/measure_labyrinth.py
	$(BIN)/python tests/benchmarks/measure_sudoku.py
	$(BIN)/python tests/benchmarks/measure_problems.py
	test -z "$$JFB_DATA" || $(BIN)/python -m jfb_tutorial reproduce mnist --out book/records
	test -z "$$JFB_DATA" || $(BIN)/python -m jfb_tutorial reproduce cifar10 --out book/records
	test -z "$$JFB_DATA" || $(BIN)/python -m jfb_tutorial reproduce phantom --out book/records
	test -z "$$JFB_DATA" || $(BIN)/python tests/benchmarks/measure_peers.py
	test -z "$$JFB_DATA" || $(BIN)/python tests/benchmarks/measure_graphs.py
	test -z "$$JFB_DATA" || $(BIN)/python tests/benchmarks/measure_language.py
	test -z "$$JFB_DATA" || $(BIN)/python -m jfb_tutorial inspect book/records/cifar10.safetensors \
	    --out book/records/cifar10-inspected.json --picture book/images/cifar10-steps.png

timings: .venv/ready
	$(BIN)/python tests/benchmarks/time_solvers.py
	$(BIN)/python tests/benchmarks/time_rules.py
	$(BIN)/python tests/benchmarks/time_training.py digits
	test -z "$$JFB_DATA" || $(BIN)/python tests/benchmarks/time_training.py mnist
	test -z "$$JFB_DATA" || $(PEERS)
	test -z "$$JFB_DATA" || $(BIN)/python tests/benchmarks/time_cifar10.py
	test -z "$$JFB_DATA" || $(BIN)/python tests/benchmarks/time_phantom.py

benchmarks: .venv/ready
	$(PEERS)
	$(BIN)/python tests/benchmarks/run.py

work: .venv/ready
	$(BIN)/python book/_ext/editions.py work

lab: work
	OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} $(BIN)/jupyter lab work/start.ipynb

plain: .venv/ready
	$(BIN)/python book/_ext/editions.py plain $(REPOSITORY)

pdf: book
	$(BIN)/python book/_ext/whole_book.py

zip: book
	$(BIN)/python book/_ext/offline.py

course: .venv/ready $(if $(NBGRADER),.venv/nbgrader/ready)
	OMP_NUM_THREADS=1 $(BIN)/python book/_ext/course.py $(NBGRADER:%=--nbgrader %)

serve: book
	$(BIN)/python -m http.server --directory book/_build/html --bind 127.0.0.1 8000

lint: .venv/ready
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

# whether the addresses of other hosts that the book names are there; asks for a network
links: .venv/ready
	$(BIN)/python book/_ext/other_hosts.py

clean:
	rm -rf book/_build book/course/_build .pytest_cache .ruff_cache .mypy_cache .hypothesis .benchmarks

.venv/ready: pyproject.toml $(CONSTRAINTS)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	    { echo "Python 3.11 or newer is needed; name one with: make PYTHON=python3.12 ..." >&2; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --no-compile $(CONSTRAINTS:%=--constraint %) --editable '.[dev]'
	@touch $@

# what nbgrader takes besides the rest; in a folder of its own, since it would add its menus to the readers' JupyterLab
.venv/nbgrader/ready: .venv/ready
	$(BIN)/python -m pip install --quiet --no-deps --upgrade --target .venv/nbgrader $(CONSTRAINTS:%=--constraint %) \
	    nbgrader alembic Mako RapidFuzz
	@touch $@
