#include "data/cifar_file.h"
#include "data/datasets.h"

namespace uvit {
namespace {

const char* const kFineLabels[] = {
    "apple",    "aquarium_fish", "baby",      "bear",         "beaver",    "bed",     "bee",         "beetle",     "bicycle",      "bottle",
    "bowl",     "boy",           "bridge",    "bus",          "butterfly", "camel",   "can",         "castle",     "caterpillar",  "cattle",
    "chair",    "chimpanzee",    "clock",     "cloud",        "cockroach", "couch",   "crab",        "crocodile",  "cup",          "dinosaur",
    "dolphin",  "elephant",      "flatfish",  "forest",       "fox",       "girl",    "hamster",     "house",      "kangaroo",     "keyboard",
    "lamp",     "lawn_mower",    "leopard",   "lion",         "lizard",    "lobster", "man",         "maple_tree", "motorcycle",   "mountain",
    "mouse",    "mushroom",      "oak_tree",  "orange",       "orchid",    "otter",   "palm_tree",   "pear",       "pickup_truck", "pine_tree",
    "plain",    "plate",         "poppy",     "porcupine",    "possum",    "rabbit",  "raccoon",     "ray",        "road",         "rocket",
    "rose",     "sea",           "seal",      "shark",        "shrew",     "skunk",   "skyscraper",  "snail",      "snake",        "spider",
    "squirrel", "streetcar",     "sunflower", "sweet_pepper", "table",     "tank",    "telephone",   "television", "tiger",        "tractor",
    "train",    "trout",         "tulip",     "turtle",       "wardrobe",  "whale",   "willow_tree", "wolf",       "woman",        "worm"};

}  // namespace

// The 100 fine labels are the classes; the 20 coarse ones are left out.
std::unique_ptr<Dataset> open_cifar100(const DataConfig& config, Split split) {
  RawImages raw = read_cifar(config.path, "cifar-100-binary", {split == Split::train ? "train.bin" : "test.bin"}, 2,
                             "unpack cifar-100-binary.tar.gz (https://www.cs.toronto.edu/~kriz/cifar.html) and set data.path to its folder");
  raw.class_names.assign(std::begin(kFineLabels), std::end(kFineLabels));
  raw.num_classes = 100;
  return make_memory_dataset(std::move(raw), config);
}

}  // namespace uvit
