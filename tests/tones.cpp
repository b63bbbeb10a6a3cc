// make_tones FOLDER COUNT: speech in miniature for trying the commands out (tests/tones.h).
#include "tests/tones.h"

#include <iostream>

int main(int argc, char** argv) {
  if (argc != 3) {
    std::cerr << "usage: make_tones FOLDER COUNT\n";
    return 2;
  }
  try {
    centroid::test::make_tones(argv[1], std::stoi(argv[2]));
  } catch (const std::exception& e) {
    std::cerr << "error: " << e.what() << "\n";
    return 1;
  }
}
