"""Learning from recorded episodes, in the order in which an update goes through the files.

1. `dataset_section.py`: where the configuration says that the episodes are; `../datasets/` reads them.
2. `offline.py`: the algorithm's options, and the loop over updates (`learn`).
3. `data.py`: the episodes as one policy reads them; `batches.py`: what an update draws of them;
   `shared_sampler.py`: what of that one of several processes learns from; `micro_batches.py`: a batch in parts.
4. `objectives/`: the loss, and whatever it learns besides the policy (`learner.py` says what an objective is).
5. `../optim/optimizers.py`: backward, clipping, step.
"""
