// The entry point that all test programs share. With CENTROID_TEST_DEVICE=cuda, tensors that name
// no device lie there: the same tests then run on that device.
#define CATCH_CONFIG_RUNNER
#include <catch2/catch.hpp>
#include <cstdlib>
#include <iostream>

#include "tensor/device.h"

int main(int argc, char** argv) {
  if (const char* device = std::getenv("CENTROID_TEST_DEVICE")) {
    try {
      centroid::set_default_device(centroid::parse_device(device));
    } catch (const std::exception& error) {
      std::cerr << "error: CENTROID_TEST_DEVICE: " << error.what() << "\n";
      return 1;
    }
  }
  return Catch::Session().run(argc, argv);
}
