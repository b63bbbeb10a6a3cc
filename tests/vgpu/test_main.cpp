// The entry point of test_opcodes. The shared one in tests/ needs the tensor library.
#define CATCH_CONFIG_MAIN
#include <catch2/catch.hpp>
