"""How a bundle is made and measured. Nothing here is needed to run one.

Data         `data` raw corpora → frozen splits; `recordings` audio → stores; `synthesis`, `phones`, `augment` training
             speech; `concepts` every sentence of dialogues and stories, encoded once
Text space   `text` the run; `text_batches`; `cross_entropy`
Speech       `speech` the run; `speech_model`, `speech_losses`, `speech_batches`
LCMs         `lcm_trainer` the run, `lcm_variants` what differs; `packing` its batches; `objective` what is learnt:
             `regression`, `diffusion` with `fragility`, `energy`, `quantisation`, `decoded_loss`, `distillation`;
             `processes`, `tensors` several processes; `checkpoints`, `run_notes` what goes on; `scalars` the metrics
Reply bank   `replies` builds it; `reply_texts` which sentences it may hold
Measuring    `evaluate_text`, `evaluate_speech`
LCMs         `evaluate_lcm`: `predictors` and `lcm_baselines` on `reply_items`; `concept_metrics`, `decoded_metrics`,
             `hits`, `prompted_replies`, put together in `lcm_figures` with `intervals`; `judge`, `judge_model`,
             `judge_trainer` the language model of coherence; `blind` two systems side by side
All of them  `muon` the optimiser; `step_means`, `curves`; `export` checkpoint → bundle; `card`, `lcm_table` →
             docs/MODEL_CARD.md

`scripts/train.py`, `scripts/evaluate.py` and `scripts/model_card.py` are the ways in.
"""
