"""Other tools' names of options lead to Striate's."""

import pytest

import striate
from striate import cli
from striate.errors import UsageError
from striate.training import foreign_names

TYPED = [  # the command and the option; what the message says
    ("train d --pretrained", "--pretrained: in Striate it is --weights imagenet (Initial weights)"),
    ("train d --freeze", "--freeze: in Striate it is --transfer head (Layers to train)"),
    ("train d --learning-rate 0.1", "--learning-rate: in Striate it is --lr (Peak learning rate)"),
    ("train d --lr0=0.01", "--lr0: in Striate it is --lr (Peak learning rate)"),
    ("train d -lr 0.1", "-lr: in Striate it is --lr (Peak learning rate)"),
    ("train d --LR 0.1", "--LR: in Striate it is --lr (Peak learning rate)"),
    ("train d --image-size 9", "--image-size: in Striate it is --imgsz (Side of the square input in pixels"),
    ("train d --img_size 9", "--img_size: in Striate it is --imgsz (Side of the square input in pixels"),
    ("train d --batch_size 9", "--batch_size: in Striate it is --batch-size (Batch size)"),
    ("train d --num-epochs 9", "--num-epochs: in Striate it is --epochs (Passes over the training data)"),
    ("train d --weight_decay 9", "--weight_decay: in Striate it is --weight-decay (Weight decay"),
    ("train d --num_classes 3", "--num_classes: the number of classes comes from the data"),
    ("train d --momentun 3", "--momentun: did you mean --momentum?"),
    ("train d --zzzz", "--zzzz: there is no option of that name"),
    ("predict m i --topk 3", "--topk: in Striate it is --top (Number of classes to show)"),
    ("predict m i --img-size 9", "--img-size: the model file contains the preprocessing"),
    ("evaluate m --batchsize 9", "--batchsize: in Striate it is --batch (Batch size)"),
    ("seq2seq translate m --num_beams 9", "--num_beams: in Striate it is --beam (Beam size"),
    ("seq2seq train p --src en", "--src: in Striate it is --from (File extension of the source"),
    ("check d --model r", "--model: this command needs no model"),
    ("check d --img-size 9", "--img-size: this command needs no model"),
    ("evaluate --model r", "--model: the network is an argument without a flag"),
    ("weights import f --state-dict-key ema", "--state-dict-key: in Striate it is --part"),
]


@pytest.mark.parametrize(("typed", "says"), TYPED, ids=[typed for typed, _ in TYPED])
def test_the_error_names_the_option_that_is_meant(typed, says, capsys):
    assert cli.run(typed.split()) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"striate: unknown option {says}")
    assert error.endswith(" --help`\n")
    assert error.count("\n") == 1


def test_every_row_is_an_option_of_a_command(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")  # narrow terminals cut long names
    for name, entry in cli.COMMANDS.items():
        for path in [[name]] if isinstance(entry, cli.Command) else [[name, sub] for sub in entry]:
            cli.run([*path, "--help"])
    options = set(capsys.readouterr().out.replace(",", " ").split())
    for meant in foreign_names._NAMES:
        assert f"--{meant.split()[0]}" in options
    assert set(foreign_names._OTHERS) <= set(foreign_names._UNNEEDED)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"learning_rate": 1}, "unknown option 'learning_rate': in Striate it is lr"),
        ({"pretrained": True}, "unknown option 'pretrained': in Striate it is weights='imagenet'"),
        ({"batch_size": 1}, "unknown option 'batch_size': in Striate it is batch"),
        ({"wd": 1}, "unknown option 'wd': in Striate it is weight_decay"),
        ({"num_classes": 1}, "unknown option 'num_classes': the number of classes comes from the data"),
        ({"epoch": 1}, "unknown option 'epoch': did you mean epochs"),
    ],
    ids=str,
)
def test_keyword_arguments_too(given, says):
    with pytest.raises(UsageError) as error:
        striate.train("x", **given)
    assert str(error.value).startswith(says)
