#!/bin/bash
# Make the tables, plots and results of this folder; a stopped run goes on from CACHE.
#   tests/bench/studies/make.sh ../shared/data/cxr ../shared/weights CACHE [table4|table5|small-sample|learning-curve ...]
set -eu
data=$1 weights=$2 cache=$3
shift 3
seen="The X-ray base of ResNet-50 has seen normal images of this same collection while it was pre-trained (7,596 chest \
X-rays in six classes, no COVID-19 image): some normal test images may not be new to it."

run() {
  .venv/bin/nightread study "$@" --data "$data" --collection "COVID-19 Radiography Database" \
    --weights "vgg19=$weights/vgg19_imagenet_notop.weights.h5" --describe "vgg19=ImageNet" \
    --weights "resnet50=$weights/resnet50_cxr_notop.weights.h5" --describe "resnet50=chest X-rays, no ImageNet" \
    --note "$seen" --precision mixed_bfloat16 --cache "$cache" --out tests/bench/studies > /dev/null
}

for study in "${@:-table4 table5 small-sample learning-curve}"; do
  for one in $study; do
    case $one in
      small-sample) run "$one" --architecture resnet50 ;;
      learning-curve) run "$one" --architecture resnet50 --head pooled256 ;;
      *) run "$one" ;;
    esac
  done
done
