// The program `copy` as a user runs it.
#include <catch2/catch.hpp>

#include "apps/copy_task.h"
#include "tests/apps/process.h"

using namespace centroid;
using Catch::Matchers::Contains;
using Json = nlohmann::ordered_json;
using test::log_lines;
using test::Outcome;
using test::Words;
using test::operator+;

namespace {

Outcome run(const test::TempDir& dir, const Words& arguments) {
  return test::run(dir, "copy", arguments);
}

// A small training that uses all random streams and all state: dropout, averaged weights. One
// thread unless a test is about threads: such small steps gain nothing from more.
Words tiny(const std::string& out, int steps, const std::string& task = "causal",
           const std::string& threads = "1") {
  Words words = {"train", "--out", out, "--task", task, "--steps", std::to_string(steps)};
  for (const char* word :
       {"--length", "16", "--layers",     "2",  "--heads",      "2",   "--width",        "32",
        "--hidden", "64", "--batch",      "8",  "--dropout",    "0.1", "--ema",          "0.9",
        "--warmup", "10", "--eval-every", "20", "--save-every", "7",   "--eval-batches", "2",
        "--threads"}) {
    words.push_back(word);
  }
  words.push_back(threads);
  return words;
}

// ---- what a run leaves behind ---------------------------------------------------------------

int64_t last_logged_step(const std::string& out) {
  if (!std::filesystem::exists(out + "/log.jsonl")) return 0;
  const auto lines = apps::read_json_lines(out + "/log.jsonl");
  return lines.empty() ? 0 : lines.back().at("step").get<int64_t>();
}

void check_same_tensors(const nn::NamedTensors& a, const nn::NamedTensors& b) {
  REQUIRE(a.size() == b.size());
  for (size_t i = 0; i < a.size(); ++i) {
    INFO(a[i].first);
    CHECK(a[i].first == b[i].first);
    CHECK(test::same_bits(a[i].second, b[i].second));
  }
}

void check_same_runs(const std::string& a, const std::string& b) {
  CHECK(log_lines(a) == log_lines(b));
  for (const char* file : {"/last.safetensors", "/best.safetensors"}) {
    const nn::Checkpoint one = nn::load_checkpoint(a + file), two = nn::load_checkpoint(b + file);
    CHECK(one.step == two.step);
    CHECK(one.rngs == two.rngs);
    check_same_tensors(one.model, two.model);
    check_same_tensors(one.optimizer, two.optimizer);
    check_same_tensors(one.ema, two.ema);
  }
}

// Waits until `step` is in the log; false if the process ended before.
bool reached(test::Process& process, const std::string& out, int64_t step) {
  while (last_logged_step(out) < step) {
    if (!process.running()) return false;
    ::usleep(2000);
  }
  return true;
}

}  // namespace

TEST_CASE("a short training lowers the loss and leaves a whole run folder", "[copy]") {
  for (const std::string kind : {"causal", "masked"}) {
    const test::TempDir dir;
    const std::string out = dir / "run";
    const Outcome trained =
        run(dir, tiny(out, 120, kind) + Words{"--alphabet", "3", "--lr", "0.01"});
    INFO(trained.err);
    REQUIRE(trained.code == 0);
    CHECK_THAT(trained.out, Contains(kind == "causal" ? "copied symbols " : "masked accuracy "));
    std::vector<double> losses;
    for (const Json& line : apps::read_json_lines(out + "/log.jsonl")) {
      if (!line.contains("event")) losses.push_back(line.at("loss").get<double>());
    }
    REQUIRE(losses.size() == 120);
    CHECK(losses.front() > 1.0);  // log 4 = 1.4
    CHECK(losses.back() < losses.front() - 0.2);
    CHECK(Json::parse(test::read_text(out + "/config.json")).at("length") == 16);
    CHECK(nn::load_checkpoint(out + "/last.safetensors").step == 120);
    CHECK(std::filesystem::exists(out + "/best.safetensors"));
#ifdef CENTROID_HAVE_STB
    CHECK(test::read_text(out + "/curves.png").substr(1, 3) == "PNG");
#endif

    const Outcome scored =
        run(dir, {"eval", "--model", out, "--json", "--batches", "3", "--threads", "1"});
    REQUIRE(scored.code == 0);
    const Json score = Json::parse(scored.out);
    CHECK(score.at("task") == kind);
    CHECK(score.at("accuracy").get<double>() > 0.4);
    CHECK(score.at("right").get<double>() / score.at("asked").get<double>() ==
          Approx(score.at("accuracy").get<double>()));
    const Outcome longer = run(dir, {"eval", "--model", out + "/last.safetensors", "--length", "24",
                                     "--batches", "3", "--threads", "1"});
    CHECK(longer.code == 0);
    CHECK_THAT(longer.out, Contains("length 24"));
  }
}

TEST_CASE("a killed run resumes to the bits of an uninterrupted one", "[copy]") {
  const test::TempDir dir;
  const std::string whole = dir / "whole", broken = dir / "broken";
  REQUIRE(run(dir, tiny(whole, 100)).code == 0);
  {
    test::Process process(dir, "copy", tiny(broken, 100));
    REQUIRE(reached(process, broken, 30));
    process.signal(SIGKILL);
    CHECK(process.wait() == -SIGKILL);
  }
  REQUIRE(last_logged_step(broken) < 100);
  // As if the kill had come in the middle of a line.
  std::ofstream(broken + "/log.jsonl", std::ios::app) << "{\"step\": 14";
  const Outcome resumed = run(dir, {"train", "--resume", broken});
  INFO(resumed.err);
  REQUIRE(resumed.code == 0);
  check_same_runs(whole, broken);
}

TEST_CASE("a run asked to stop saves, says how to go on, and goes on exactly", "[copy]") {
  const test::TempDir dir;
  const std::string whole = dir / "whole", stopped = dir / "stopped";
  REQUIRE(run(dir, tiny(whole, 100, "masked")).code == 0);
  test::Process process(dir, "copy", tiny(stopped, 100, "masked"));
  REQUIRE(reached(process, stopped, 30));
  process.signal(SIGTERM);
  CHECK(process.wait() == 0);
  CHECK_THAT(process.err(), Contains("--resume"));
  REQUIRE(nn::load_checkpoint(stopped + "/last.safetensors").step < 100);
  REQUIRE(run(dir, {"train", "--resume", stopped}).code == 0);
  check_same_runs(whole, stopped);
}

TEST_CASE("1, 2 and 4 threads give the same run", "[copy]") {
  const test::TempDir dir;
  for (const char* threads : {"1", "2", "4"}) {
    // Large enough for every loop to be cut into several chunks.
    const Outcome o = run(dir, {"train", "--out", dir / threads, "--threads", threads, "--length",
                                "96", "--width", "96", "--hidden", "384", "--steps", "4", "--batch",
                                "4", "--dropout", "0.1", "--eval-batches", "1"});
    REQUIRE(o.code == 0);
  }
  check_same_runs(dir / "1", dir / "2");
  check_same_runs(dir / "1", dir / "4");
}

TEST_CASE("the seed decides the first weights and, from then on, the data", "[copy]") {
  const test::TempDir dir;
  REQUIRE(run(dir, tiny(dir / "a", 3)).code == 0);
  REQUIRE(run(dir, tiny(dir / "other", 3) + Words{"--seed", "2"}).code == 0);
  CHECK(log_lines(dir / "a") != log_lines(dir / "other"));
  // From the same checkpoint on, only the data can differ.
  for (const char* name : {"b", "c"}) {
    std::filesystem::copy(dir / "a", dir / name, std::filesystem::copy_options::recursive);
  }
  REQUIRE(run(dir, {"train", "--resume", dir / "a", "--steps", "4"}).code == 0);
  REQUIRE(run(dir, {"train", "--resume", dir / "b", "--steps", "4"}).code == 0);
  REQUIRE(run(dir, {"train", "--resume", dir / "c", "--steps", "4", "--seed", "2"}).code == 0);
  const auto loss = [&](const std::string& name) {
    for (const Json& line : apps::read_json_lines(dir / (name + "/log.jsonl"))) {
      if (line.at("step") == 4) return line.at("loss").get<double>();
    }
    return 0.0;
  };
  CHECK(loss("a") == loss("b"));
  CHECK(loss("a") != loss("c"));
}

TEST_CASE("checkpoints of others are refused with exit 1", "[copy]") {
  const test::TempDir dir;
  nn::Checkpoint other;
  other.model = {{"encoder.weight", zeros({2, 2})}};
  other.texts = {{"kind", "asr"}, {"model", "{}"}};
  nn::save_checkpoint(dir / "asr.safetensors", other);
  Outcome o = run(dir, {"eval", "--model", dir / "asr.safetensors"});
  CHECK(o.code == 1);
  CHECK_THAT(o.err,
             Contains("error: ") && Contains("expected a checkpoint of copy, got one of asr"));
  CHECK(o.out.empty());

  other.texts = {{"kind", "copy"}, {"task", "{\"task\": 3}"}, {"model", "{}"}};
  nn::save_checkpoint(dir / "damaged.safetensors", other);
  o = run(dir, {"eval", "--model", dir / "damaged.safetensors"});
  CHECK(o.code == 1);
  CHECK_THAT(o.err, Contains("damaged description"));

  o = run(dir, {"eval", "--model", dir / "missing.safetensors"});
  CHECK(o.code == 1);
  CHECK_THAT(o.err, Contains("missing.safetensors"));
  o = run(dir, {"eval", "--model", dir.path().string()});
  CHECK(o.code == 1);
  CHECK_THAT(o.err, Contains("found neither"));
}

TEST_CASE("a checkpoint whose weights do not fit its description is refused", "[copy]") {
  const test::TempDir dir;
  REQUIRE(run(dir, tiny(dir / "run", 3)).code == 0);
  nn::Checkpoint checkpoint = nn::load_checkpoint(dir / "run/last.safetensors");
  checkpoint.ema.clear();
  checkpoint.model.pop_back();
  nn::save_checkpoint(dir / "run/last.safetensors", checkpoint);
  for (const Words& arguments : {Words{"eval", "--model", dir / "run/last.safetensors"},
                                 Words{"train", "--resume", dir / "run"}}) {
    const Outcome o = run(dir, arguments);
    CHECK(o.code == 1);
    CHECK_THAT(o.err, Contains("output.weight"));
  }
}

TEST_CASE("wrong usage exits with 2 and names the nearest flag", "[copy]") {
  const test::TempDir dir;
  Outcome o = run(dir, {"train", "--lenght", "64"});
  CHECK(o.code == 2);
  CHECK_THAT(o.err, Contains("--lenght") && Contains("nearest: --length"));
  o = run(dir, {"trian"});
  CHECK(o.code == 2);
  CHECK_THAT(o.err, Contains("nearest: train"));
  o = run(dir, {"train", "--task", "mask", "--out", dir / "run"});
  CHECK(o.code == 2);
  CHECK_THAT(o.err, Contains("--task"));
  CHECK(!std::filesystem::exists(dir / "run"));
  o = run(dir, {});
  CHECK(o.code == 2);
}

TEST_CASE("folders that cannot take a run are refused before anything is written", "[copy]") {
  const test::TempDir dir;
  REQUIRE(run(dir, tiny(dir / "run", 3)).code == 0);
  const std::vector<std::string> before = log_lines(dir / "run");
  Outcome o = run(dir, tiny(dir / "run", 3));
  CHECK(o.code == 1);
  CHECK_THAT(o.err, Contains("--resume") && Contains("--overwrite"));
  CHECK(log_lines(dir / "run") == before);
  CHECK(run(dir, tiny(dir / "run", 4) + Words{"--overwrite"}).code == 0);
  CHECK(last_logged_step(dir / "run") == 4);

  std::ofstream(dir / "file") << "in the way";
  o = run(dir, tiny(dir / "file/run", 3));
  CHECK(o.code == 1);
  CHECK_THAT(o.err, Contains("cannot create the folder"));
  if (::geteuid() != 0) {  // root may write everywhere
    std::filesystem::create_directory(dir / "locked");
    std::filesystem::permissions(dir / "locked", std::filesystem::perms::owner_read);
    o = run(dir, tiny(dir / "locked", 3));
    CHECK(o.code == 1);
  }
  o = run(dir, {"train", "--resume", dir / "nothing"});
  CHECK(o.code == 1);
  CHECK_THAT(o.err, Contains("nothing"));
}

TEST_CASE("a checkpoint that cannot be written whole is an error and leaves no part", "[copy]") {
  const test::TempDir dir;
  test::Process process(dir, "copy", tiny(dir / "run", 3), 20000);
  CHECK(process.wait() == 1);
  CHECK_THAT(process.err(), Contains("error: ") && Contains("last.safetensors"));
  for (const auto& entry : std::filesystem::directory_iterator(dir / "run")) {
    const std::string name = entry.path().filename();
    CHECK((name == "config.json" || name == "log.jsonl"));
  }
}

TEST_CASE("options that do not fit together leave no folder", "[copy]") {
  const test::TempDir dir;
  for (const Words& more : {Words{"--heads", "5"}, Words{"--attention", "fulll"},
                            Words{"--task", "masked", "--length", "15"}}) {
    const Words arguments = Words{"train", "--out", dir / "run", "--steps", "2"} + more;
    const Outcome o = run(dir, arguments);
    CHECK(o.code == 1);
    CHECK_THAT(o.err, Contains("error: ") && Contains(more.back()));
    CHECK(!std::filesystem::exists(dir / "run"));
  }
}

TEST_CASE("a loss that explodes ends the training with a clear error", "[copy]") {
  const test::TempDir dir;
  const Outcome o = run(dir, tiny(dir / "run", 50) + Words{"--lr", "1e30"});
  CHECK(o.code == 1);
  CHECK_THAT(o.err, Contains("bad steps in a row") && Contains("--lr"));
}

TEST_CASE("learned positions end where training ended", "[copy]") {
  const test::TempDir dir;
  REQUIRE(run(dir, tiny(dir / "run", 3) + Words{"--positions", "learned"}).code == 0);
  const Outcome o = run(dir, {"eval", "--model", dir / "run", "--length", "64"});
  CHECK(o.code == 1);
  CHECK_THAT(o.err, Contains("learned positions"));
}

TEST_CASE("written symbol by symbol: the symbols and logits of forward passes", "[copy]") {
  copy::TaskOptions task;
  task.task = "causal";
  task.length = 14;
  task.alphabet = 4;
  for (const char* attention :
       {"full", "causal-linear", "conditional-full:limit=6(causal-linear)"}) {
    nn::TransformerOptions options{.layers = 2, .heads = 2, .width = 16, .hidden = 32};
    options.attention = attention;
    Rng init(1);
    copy::Model model(task, options, init);
    const Rng data(5);
    const copy::Generation written = copy::generate(model, task, 6, 2, data, true);
    CHECK(written.difference < 1e-5);
    // The same by a forward pass over everything so far for each symbol, one sequence at a time.
    int64_t right = 0, tokens = 0;
    for (uint64_t i = 0; i < 2; ++i) {
      const copy::Batch batch = copy::make_batch(task, 6, data.fork(i));
      const int64_t time = batch.inputs.size(1);
      tokens += 6 * time;
      for (int64_t b = 0; b < 6; ++b) {
        const auto row = [&](const Tensor& x) {
          return raw::contiguous(raw::select(x, 0, b)).to_vector<int64_t>();
        };
        const std::vector<int64_t> targets = row(batch.targets);
        std::vector<int64_t> symbols = row(batch.inputs);
        for (int64_t t = 0; t < batch.lengths[b]; ++t) {
          const std::vector<int64_t> so_far(symbols.begin(), symbols.begin() + t + 1);
          const Tensor logits = model.forward(from_vector(so_far, {1, t + 1}), {}, {});
          const int64_t best = raw::argmax(logits).to_vector<int64_t>().back();
          if (targets[t] == copy::kIgnore) continue;
          right += best == targets[t];
          if (t + 1 < time) symbols[t + 1] = best;
        }
      }
    }
    CHECK(written.right == right);
    CHECK(written.tokens == tokens);
    CHECK(written.asked == copy::evaluate(model, task, 6, 2, data).asked);
  }
}

TEST_CASE("eval --generate writes the second word and can check itself", "[copy]") {
  const test::TempDir dir;
  const auto generate = [&](const std::string& out, const Words& more) {
    return run(
        dir,
        Words{"eval", "--model", out, "--generate", "--batches", "2", "--threads", "1"} + more);
  };
  for (const char* attention : {"full", "causal-linear:map=favor,features=32"}) {
    for (const char* positions : {"rotary", "learned"}) {
      const std::string out = dir / concat(attention, "-", positions);
      REQUIRE(run(dir, tiny(out, 60) + Words{"--attention", attention, "--positions", positions,
                                             "--alphabet", "2", "--lr", "0.01"})
                  .code == 0);
      const Outcome o = generate(out, {"--check", "--json"});
      INFO(o.err);
      REQUIRE(o.code == 0);
      const Json result = Json::parse(o.out);
      CHECK(result.at("difference").get<double>() <= 1e-4);
      CHECK(result.at("accuracy").get<double>() > 0.3);
      CHECK(result.at("asked").get<int64_t>() > 0);
      CHECK(result.at("tokens_per_second").get<double>() ==
            Approx(result.at("tokens").get<double>() / result.at("seconds").get<double>()));
      const Outcome text = generate(out, {});
      CHECK(text.code == 0);
      CHECK_THAT(text.out, Contains("written symbols ") && Contains("length 16"));
      CHECK_THAT(text.err, Contains("tokens/s") && !Contains("agree"));
    }
  }
  const Outcome alone = run(dir, {"eval", "--model", dir / "full-rotary", "--check"});
  CHECK(alone.code == 2);
  CHECK_THAT(alone.err, Contains("--generate"));
  const Outcome other = generate(dir / "full-rotary", {"--attention", "linear"});
  CHECK(other.code == 1);
  CHECK_THAT(other.err, Contains("causal"));
  const std::string masked = dir / "masked";
  REQUIRE(run(dir, tiny(masked, 3, "masked")).code == 0);
  const Outcome o = generate(masked, {});
  CHECK(o.code == 1);
  CHECK_THAT(o.err, Contains("expected a model of the causal task, got one of the masked task"));
}

TEST_CASE("--check is not misled by choices that rounding decides", "[copy]") {
  const test::TempDir dir;
  // In each of these rounding was seen to decide otherwise; whether it does is the machine's.
  const std::vector<std::pair<std::string, Words>> cases = {
      {"exact-topk:topk=6", {}},
      {"causal-improved-clustered:block=8,clusters=4,topk=8", {"--length", "96", "--seed", "4"}}};
  for (const auto& [attention, more] : cases) {
    INFO(attention);
    Words train = {"train", "--out", dir / attention, "--attention", attention};
    for (const char* word :
         {"--task",  "causal", "--length", "48",    "--alphabet", "4",  "--layers", "2",
          "--heads", "2",      "--width",  "32",    "--hidden",   "64", "--batch",  "16",
          "--steps", "60",     "--lr",     "0.005", "--threads",  "1"}) {
      train.push_back(word);
    }
    REQUIRE(run(dir, train).code == 0);
    const Outcome o = run(dir, Words{"eval", "--model", dir / attention, "--generate", "--check",
                                     "--json", "--threads", "1"} +
                                   more);
    INFO(o.err);
    REQUIRE(o.code == 0);
    const Json result = Json::parse(o.out);
    CHECK(result.at("difference").get<double>() <= 1e-9);
    CHECK(result.at("apart").get<int64_t>() <= result.at("tokens").get<int64_t>() / 1000);
  }
}

TEST_CASE("an option without meaning is refused before there is a run folder", "[copy]") {
  const test::TempDir dir;
  for (const char* attention :
       {"clustered:clusters=2.5", "improved-clustered:clusters=1.5", "reformer:buckets=3",
        "conditional-full:limit=8(local-clustered:clusters=3.2)"}) {
    const Outcome o = run(dir, tiny(dir / "run", 3, "masked") + Words{"--attention", attention});
    INFO(attention << o.err);
    CHECK(o.code == 1);
    CHECK(!std::filesystem::exists(dir / "run"));
  }
}

TEST_CASE("--help-attention lists the variants", "[copy]") {
  const test::TempDir dir;
  const Outcome o = run(dir, {"train", "--help-attention"});
  CHECK(o.code == 0);
  CHECK_THAT(o.out, Contains("full"));
}
