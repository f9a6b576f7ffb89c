"""Fine-tuning and its evidence: data and splits, augmentation, the loop, metrics, the gate, the report.

The model that ships was made by these commands (2 CPU cores, about two hours; DATA and the base as in `../shared`):

    T="python -m workers.training.finetune DATA/cxr"
    $T --base resnet50_cxr_notop.weights.h5 --stage 128:4:2e-4 --batch-size 32 --out a.safetensors
    $T --start a.safetensors --stage 160:5:1.5e-4 --out b.safetensors
    $T --start b.safetensors --stage 224:3:1e-4 --out c.safetensors
    python -m workers.training.ship c.safetensors DATA/cxr --out workers/shipped/covid-resnet50 \\
        --reference f.safetensors
    python -m workers.training.parity workers/shipped/covid-resnet50 f.safetensors DATA/cxr -n 200
    python -m workers.training.examine workers/shipped/covid-resnet50 DATA
"""
