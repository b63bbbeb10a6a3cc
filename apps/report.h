#pragma once
// The program `report`: the experiments of the clustered-attention paper as cells, one command each
// or a few, whose results are kept as JSON; and the page and the figures made of them.
#include <functional>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

namespace centroid::apps {

using Words = std::vector<std::string>;
using Json = nlohmann::ordered_json;

/// One command of a cell. Its words may begin with `$WORK` (the work folder), `$SCRIPTS` (`apps`)
/// and the names of environment variables that point to data: `$FESTVOX_RU`, `$FSDD`, `$ASTERISK`.
struct Step {
  enum Kind {
    prepare,  ///< makes `$WORK/data/NAME`, once for all cells
    train,    ///< makes `$WORK/runs/NAME`, once for all cells, resumed where it was interrupted
    result    ///< prints JSON, which the cell keeps
  };
  Kind kind = result;
  std::string name;  ///< of data or a training: see above; of a result: its key in the cell
  Words words;       ///< program, then its arguments
  int repeat = 1;    ///< result: run so often; kept as a list if more than once
};

/// One run whose results are one file `docs/results/ID.json`.
struct Cell {
  std::string id;      ///< `part/...`; trainings whose names begin so are the cell's own
  double minutes = 0;  ///< what it takes on 2 cores, roughly
  int rank = 0;        ///< smaller ones run first: what is cheap and tells much
  std::vector<Step> steps;
  std::string needs = {};  ///< a program that must be installed

  std::string part() const { return id.substr(0, id.find('/')); }
  Words commands() const;    ///< as `shell_line` writes them
  std::string data() const;  ///< the environment variable it needs, such as FSDD; or empty
};

/// `words` as text for a shell in which the variables are set.
std::string shell_line(const Words& words);

/// All cells in the order of the page. The cell `smoke/copy`, which takes seconds and is not on
/// the page, is only there when `smoke`.
std::vector<Cell> report_cells(bool smoke);

// ---- the settings of the parts, which cells and page share --------------------------------------

/// A name for tables and cell ids, and the attention behind it.
struct Variant {
  std::string name, attention;
};
inline const std::vector<Variant> kScalingVariants = {
    {"full", "full"},
    {"clustered-100", "clustered:clusters=100,bits=63,iterations=10"},
    {"improved-clustered-100", "improved-clustered:clusters=100,bits=63,iterations=10,topk=32"},
    {"reformer-1", "reformer:rounds=1"},
    {"reformer-4", "reformer:rounds=4"}};
inline const std::vector<int64_t> kScalingLengths = {128,  256,  512,   1024,  2048,
                                                     4096, 8192, 16384, 32768, 65536};
inline constexpr int64_t kLongestTurn = 8192;  ///< beyond, full attention is timed alone and once

/// Attention with one number that is varied: `option` in its text, `letter` in cell ids.
struct CopyFamily {
  std::string name, letter, option;
  std::vector<int64_t> settings;
};
inline const std::vector<CopyFamily> kCopyFamilies = {
    {"clustered", "c", "clusters", {15, 30, 60}},
    {"improved-clustered", "c", "clusters", {15, 30, 60}},
    {"reformer", "r", "rounds", {1, 4, 8}}};
inline const std::vector<int64_t> kCopyLengths = {64, 128, 256};

/// A recogniser of part 3, trained once for each seed from 1 on.
struct SpeechModel {
  std::string name, family, attention;
  int64_t layers, seeds;
};
inline const std::vector<SpeechModel> kSpeechModels = {
    {"full-l2", "full", "full", 2, 2},
    {"full-l4", "full", "full", 4, 2},
    {"clustered-25-l4", "clustered", "clustered:clusters=25", 4, 2},
    {"clustered-50-l4", "clustered", "clustered:clusters=50", 4, 2},
    {"improved-clustered-25-l2", "improved-clustered", "improved-clustered:clusters=25", 2, 2},
    {"improved-clustered-50-l2", "improved-clustered", "improved-clustered:clusters=50", 2, 2},
    {"improved-clustered-25-l4", "improved-clustered", "improved-clustered:clusters=25", 4, 2},
    {"improved-clustered-50-l4", "improved-clustered", "improved-clustered:clusters=50", 4, 2},
    {"reformer-l4", "reformer", "reformer:rounds=4", 4, 1}};
/// "Trained with one, evaluated with another".
inline const Words kSwapTrained = {"full-l4", "clustered-50-l4", "improved-clustered-50-l4"};
inline const std::vector<Variant> kSwapEvaluated = {
    {"full", "full"},
    {"clustered-50", "clustered:clusters=50"},
    {"improved-clustered-50", "improved-clustered:clusters=50,topk=32"},
    {"exact-topk-32", "exact-topk:topk=32"},
    {"local-clustered-50", "local-clustered:clusters=50,window=16"},
    {"multipole-128", "multipole:near=4,chunk=32"},
    {"smyrf-4", "smyrf:rounds=4"}};

inline const std::vector<Variant> kLongVariants = {
    {"full", "full"}, {"improved-clustered-100", "improved-clustered:clusters=100,topk=32"}};
inline const std::vector<int64_t> kLongSeconds = {10, 30, 60};

inline const std::vector<int64_t> kSwapClusters = {5, 10, 25, 50, 100};
inline const std::vector<int64_t> kSwapTopk = {0, 8, 16, 32};  ///< 0: clustered

// Recognisers, beyond the paper.
inline const Words kVoiceUnits = {"phones", "characters"}, kVoiceLosses = {"ctc", "lfmmi"};
inline const std::vector<Variant> kVoiceVariants = {
    {"full", "full"}, {"improved-clustered-25", "improved-clustered:clusters=25,topk=32"}};
inline constexpr int64_t kVoiceSeeds = 2;
std::string voice_cell(const std::string& unit, const std::string& loss, const std::string& variant,
                       int64_t seed);
inline constexpr const char* kVoiceLmCell = "festvox/phones/ctc/full/lm";
/// How a long recording is transcribed, and whether an hour of it is, too. Attention to 125
/// positions of 40 ms is to 5 s on either side.
struct RecordingMode {
  std::string name, label, options;
  bool hour;
};
inline const std::vector<RecordingMode> kRecordingModes = {
    {"w5", "windows of 5 s, 1 s shared", "--window 5 --overlap 1", false},
    {"w8", "windows of 8 s, 2 s shared", "--window 8 --overlap 2", false},
    {"w10", "windows of 10 s, 2 s shared (default)", "--window 10 --overlap 2", true},
    {"w15", "windows of 15 s, 4 s shared", "--window 15 --overlap 4", false},
    {"w20", "windows of 20 s, 4 s shared", "--window 20 --overlap 4", false},
    {"w40", "windows of 40 s, 8 s shared", "--window 40 --overlap 8", false},
    {"pass", "one pass, as trained", "--window 0", true},
    {"local", "one pass, 5 s on either side", "--window 0 --attention local:window=125", true}};
inline constexpr const char *kJoinedTest = "festvox-ru-joined", *kJoinedHour = "festvox-ru-hour";
inline const Words kDigitSpeakers = {"george", "jackson", "lucas", "nicolas", "theo", "yweweler"};
inline constexpr int64_t kPromptSeeds = 2;
inline constexpr const char* kPeerCell = "asterisk/pocketsphinx";

// ---- running and rendering ----------------------------------------------------------------------

/// Where things are.
struct ReportPaths {
  std::string results = "docs/results";  ///< cells and figures; the page is `results`.md
  std::string work = "build/report";     ///< data, runs and logs that are not kept
  std::string programs;                  ///< the folder of copy, asr, bench and attention-map
  std::string scripts = "apps";          ///< the folder of what ends in .py
  std::string page() const { return results + ".md"; }
  std::string cell(const std::string& id) const { return results + "/" + id + ".json"; }
};

/// How a cell stands.
enum class CellState { missing, changed, done };
/// `changed`: its file was made by other commands than those of today.
CellState state_of(const Cell& cell, const ReportPaths& paths);

struct RunLimits {
  double minutes = 0;  ///< no cell is begun, and no training goes on, after so many; 0: no limit
  int threads = 0;     ///< given to every program; 0: their default
};

/// Runs the cells that are not done, by rank, and writes their files. Says on stderr what it does
/// and what it leaves out and why. Ends early on SIGINT, SIGTERM and at the limit: trainings save
/// first. Returns the number of cells that failed.
int run_cells(std::vector<Cell> cells, const ReportPaths& paths, const RunLimits& limits);

/// Runs `cell` again in a folder of its own and compares its counts (all whole numbers) with those
/// on file; on other kernels than those on file, which round differently, its accuracies and error
/// rates within 0.02 instead. Returns what differs, one a line.
std::string check_cell(const Cell& cell, const ReportPaths& paths, const RunLimits& limits);

/// The cells on file, by id, without those of unknown ids. Throws for files that are not cells.
std::map<std::string, Json> read_cells(const std::vector<Cell>& cells, const ReportPaths& paths);

/// The page and its figures, made of the cells alone.
struct Page {
  std::string markdown;
  std::map<std::string, std::string> figures;  ///< name -> PNG
};
Page render_page(const std::map<std::string, Json>& cells);

}  // namespace centroid::apps
