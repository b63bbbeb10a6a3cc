// copy: learn to copy sequences, a test of attention that needs no data.
#include "apps/copy.h"

#include "apps/common/args.h"

int main(int argc, char** argv) {
  using namespace centroid::apps;
  CLI::App app{
      "Copy tasks: train a small transformer to copy sequences, and see how well it does."};
  register_copy_train(app);
  register_copy_eval(app);
  return run_app(argc, argv, app);
}
