# One door: `make demo` shows the program at work, `make check test` passes everything a change must pass.

PYTHON ?= python3
VENV ?= .venv
CLIENTS ?= .venv-clients
# PyTorch's threads that wait for work sleep: else they take the cores from what else the machine does.
export OMP_WAIT_POLICY ?= passive
# MONAI warns at each command that a config runs code; these configs are our own.
RUN := PYTHONWARNINGS="ignore:parsing config_file" $(VENV)/bin/python -m monai.bundle run
KNEE := bundles/ldseg_knee3d/configs
# Phantoms are small: a smaller grid than the real knees' 256 x 128 x 128 trains in minutes.
SMALL := --spatial_size "[96,48,64]"

.PHONY: demo check test test-clients audit clean

demo: $(VENV)/.ready  # train on generated knees, score unseen ones, segment one and draw it
	$(RUN) training --config_file $(KNEE)/train.yaml --output_dir demo/training $(SMALL) \
		--max_epochs 30 --cases_per_epoch 36
	$(VENV)/bin/ldseg phantom knee --out demo/unseen --num 4 --seed 1
	$(RUN) --config_file "['$(KNEE)/train.yaml','$(KNEE)/evaluate.yaml']" --dataset_dir demo/unseen \
		--output_dir demo/scores --model_path demo/training/model.pt $(SMALL)
	$(VENV)/bin/ldseg phantom knee --out demo/one --num 1 --seed 2
	$(RUN) --config_file $(KNEE)/inference.yaml --dataset_dir demo/one --output_dir demo/segmentation \
		--model_path demo/training/model.pt $(SMALL)
	@$(VENV)/bin/python -c "import json; s = json.load(open('demo/scores/summary.json')); \
		d = s['all']['dice']['mean']; \
		print(f\"\nMean foreground Dice on {s['cases']} unseen phantoms: {d:.3f}\"); \
		raise SystemExit(None if d >= 0.85 else 'expected at least 0.85')"
	@echo "Scores: demo/scores/metrics.csv. Picture: demo/segmentation/case_000_overlay.png"

check: $(VENV)/.ready  # style, types
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

test: $(VENV)/.ready  # the tests that every change must pass; `pytest --slow` has the others
	OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest -q -n 2 -m "not slow and not clients"

test-clients: $(CLIENTS)/.ready  # the tests that run real consumers of the bundles, such as MONAI Label
	OMP_NUM_THREADS=1 $(CLIENTS)/bin/python -m pytest -q -n 2 -m clients tests/clients

audit: $(VENV)/.ready  # the pinned packages against the advisories known today; needs the network
	$(VENV)/bin/pip install pip-audit
	$(VENV)/bin/pip-audit --disable-pip --no-deps -r constraints.txt

clean:
	rm -rf $(VENV) $(CLIENTS) demo

$(VENV)/.ready: setup.cfg pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install -c constraints.txt -e ".[dev]"
	touch $@

# MONAI Label has an environment of its own, and none of its own list of needs, which would replace torch and NumPy.
$(CLIENTS)/.ready: setup.cfg pyproject.toml constraints.txt tests/clients/requirements.txt
	$(PYTHON) -m venv $(CLIENTS)
	$(CLIENTS)/bin/pip install -c constraints.txt -e ".[dev]" -r tests/clients/requirements.txt
	$(CLIENTS)/bin/pip install --no-deps monailabel==0.8.5
	echo $(CURDIR)/tests/clients/stand_ins \
		> $$($(CLIENTS)/bin/python -c "import sysconfig; print(sysconfig.get_path('purelib'))")/stand_ins.pth
	touch $@
