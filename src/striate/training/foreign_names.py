"""Names of Striate's options in other tools: timm, torchvision, Ultralytics, Keras, fairseq, ..."""

from __future__ import annotations

from collections.abc import Container

# Striate's option, with a value if one goes with the names -> other tools' names, without dashes in front.
# A name may be in several rows: the first row whose option a command has is meant.
_NAMES = {
    "weights imagenet": "pretrained use-pretrained transfer-learning imagenet pre-trained",
    "weights": (
        "pretrained-weights pretrained-path pretrained-model initial-checkpoint init-checkpoint finetune "
        "fine-tune load-weights load-from from-checkpoint checkpoint ckpt ckpt-path checkpoint-path init"
    ),
    "transfer head": (
        "freeze freeze-backbone freeze-layers freeze-encoder freeze-features frozen feature-extract "
        "feature-extraction linear-probe"
    ),
    "last-layers": "unfreeze unfreeze-layers trainable-layers trainable-backbone-layers",
    "model": "arch a architecture backbone network net model-name model-type cfg encoder-name",
    "epochs": "num-epochs n-epochs nb-epochs max-epochs max-epoch total-epochs num-train-epochs n-epoch ep",
    "budget": "time max-time time-limit max-train-time",
    "batch": (
        "batch-size bs batchsize n-batch train-batch-size val-batch-size test-batch-size eval-batch-size "
        "per-device-train-batch-size per-device-eval-batch-size per-gpu-train-batch-size batch-size-per-gpu "
        "mini-batch-size minibatch max-tokens"
    ),
    "imgsz": (
        "img image-size img-size imgsize imagesize input-size resolution res image-resolution crop-size "
        "train-crop-size val-crop-size size sz crop img-dim resize image-height"
    ),
    "lr": "learning-rate learningrate lr0 base-lr init-lr initial-lr lr-init max-lr peak-lr start-lr eta",
    "opt": "optimizer optim optimiser optimizer-type",
    "sched": "scheduler lr-scheduler lr-scheduler-type lr-schedule lr-sched lr-policy lr-decay cos-lr",
    "weight-decay": "wd decay l2 weightdecay",
    "warmup": "warmup-epochs warmup-steps warmup-ratio warmup-updates lr-warmup-epochs num-warmup-steps",
    "milestones": "step-size lr-step-size lr-steps decay-epochs decay-milestones",
    "gamma": "lr-gamma decay-rate lr-decay-rate",
    "label-smoothing": "smoothing label-smoothing-factor ls",
    "dropout": "drop drop-rate dropout-rate dropout-prob",
    "drop-path": "drop-path-rate stochastic-depth stochastic-depth-prob drop-connect",
    "grad-clip": "clip-grad clip-grad-norm max-grad-norm gradient-clip-val clip-norm clipnorm clip",
    "accumulate": (
        "grad-accum grad-accum-steps accumulation-steps gradient-accumulation-steps accumulate-grad-batches "
        "accum-iter accum update-freq"
    ),
    "ema": "model-ema ema-decay model-ema-decay use-ema",
    "amp": "fp16 bf16 half mixed-precision precision use-amp native-amp autocast",
    "compile": "torchcompile torch-compile jit",
    "patience": "early-stopping early-stop early-stopping-patience patience-epochs",
    "average": "average-checkpoints avg-checkpoints swa",
    "augment": (
        "aa auto-augment autoaugment augmentation augmentations randaug rand-augment randaugment ra hflip "
        "trivial-augment data-augmentation transforms"
    ),
    "mixup": "mixup-alpha mix-up",
    "cutmix": "cutmix-alpha cut-mix",
    "normalize": "mean std normalization",
    "channels": "in-chans in-channels input-channels num-channels img-channels grayscale gray",
    "val": "val-split validation-split val-ratio val-size val-frac valid-pct val-pct split-ratio",
    "test": "test-split test-ratio test-size test-frac",
    "data": (
        "dataset data-path data-dir datadir dataset-dir dataset-path root train-dir train-data train input "
        "input-dir imagefolder image-folder folder source"
    ),
    "workers": "num-workers n-workers nw dataloader-num-workers threads num-threads jobs cpus",
    "device": "gpu gpus gpu-id gpu-ids cuda no-cuda cpu accelerator use-gpu use-cuda mps devices",
    "seed": "random-seed random-state manual-seed rng-seed rng",
    "out": (
        "output output-dir outdir out-dir save-dir savedir project logdir log-dir save-path checkpoint-dir "
        "model-dir results-dir o output-folder result-path"
    ),
    "name": "experiment exp exp-name run-name experiment-name experiment-id",
    "resume": "resume-from resume-from-checkpoint continue continue-from restore",
    "save-every": "save-period save-freq save-interval checkpoint-every save-steps",
    "sync-bn": "syncbn sync-batchnorm sync-bn-stats",
    "find-lr": "lr-find auto-lr-find lr-finder",
    "recipe": "config-name preset hparams",
    "top": "topk top-k k n-top",
    "json": "output-format format as-json print-json",
    "part": "state-dict-key key use-ema param-key checkpoint-key",
    "classes": "class-names names labels label-names class-map class-to-idx",
    "split": "subset set partition",
    "from": "source-lang src source-language src-lang s",
    "to": "target-lang tgt target-language tgt-lang t target",
    "beam": "beam-size num-beams beams beam-width",
    "n-best": "nbest num-return-sequences",
    "alpha": "length-penalty lenpen len-penalty",
    "vocab-size": "vocab bpe-size num-merges src-vocab-size tgt-vocab-size",
    "shared-vocab": "joined-dictionary share-vocab joint-vocab share-all-embeddings",
    "tokenizer": "bpe tokenization subword",
    "width": "d-model embed-dim hidden-size model-dim emb-dim encoder-embed-dim dim",
    "hidden": "ffn-dim d-ff feedforward-dim intermediate-size mlp-dim encoder-ffn-embed-dim",
    "heads": "num-heads n-heads nhead attention-heads encoder-attention-heads",
    "depth": "num-layers n-layers layers encoder-layers num-encoder-layers",
    "decoder-depth": "decoder-layers num-decoder-layers",
    "iou": "iou-thres iou-threshold iou-thresh",
    "score": "conf conf-thres confidence score-threshold conf-threshold score-thresh",
}  # fmt: skip

_PREPROCESSING = "the model file contains the preprocessing"
_NETWORK = "the network is an argument without a flag"
_MODEL = "the model is an argument without a flag"
# Where a command has no such option -> why. All names of a row above are meant, and those in `_OTHERS`.
_UNNEEDED = {
    "imgsz": _PREPROCESSING,
    "normalize": _PREPROCESSING,
    "model": _NETWORK,
    "weights": _MODEL,
    "data": "the input is an argument without a flag",
    "classes": "the number of classes comes from the data or from the model",
    "shuffle": "training data are always shuffled, as --seed decides",
    "distributed": "torchrun starts the processes",
    "save": "the best and the last weights are always saved",
    "log": "results.csv has the metrics of each epoch",
    "quiet": "progress goes to standard error, and results to standard output",
    "debug": "set the environment variable STRIATE_DEBUG=1 to see the traceback of a bug",
}
_OTHERS = {
    "classes": "num-classes n-classes nc num-labels nb-classes",
    "shuffle": "no-shuffle",
    "distributed": "local-rank dist world-size multi-gpu ddp strategy nproc-per-node",
    "save": "save-best save-model save-checkpoint",
    "log": "tensorboard wandb logger mlflow comet log-interval print-freq log-every",
    "quiet": "q silent verbose v",
    "debug": "",
}


OF_MODELS = {_PREPROCESSING, _NETWORK, _MODEL}  # reasons that are none for a command without a model


def striate_name(name: str, options: Container[str]) -> tuple[str, str]:
    """Find the option that another tool's name means.

    Args:
        name: of the option, as the user wrote it.
        options: the names that are valid here, with hyphens and without dashes in front.

    Returns:
        Striate's option, with a value if one goes with it, such as `weights imagenet`; and why there is none.
        Either is empty if it is unknown.
    """
    name = name.strip("-").lower().replace("_", "-")
    if name in options:
        return name, ""
    rows = [meant for meant, names in _NAMES.items() if name in names.split()]
    for meant in rows:
        if meant.split()[0] in options:
            return meant, ""
    rows += [name, *(meant for meant, names in _OTHERS.items() if name in names.split())]
    return "", next((_UNNEEDED[meant] for meant in rows if meant in _UNNEEDED), "")
