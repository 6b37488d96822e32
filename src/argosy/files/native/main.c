// One program for all tools, named by its first word or by the name it is called by (argosy-pfind, pfind, find).
#include "pf.h"

const Tool *tool;
bool opt_json, opt_dryrun, opt_verbose, opt_quiet, opt_one_fs;
mode_t umask_bits;
atomic_ullong n_entries, n_dirs, n_bytes, n_changed, n_errors;

static const Tool *const tools[] = {&find_tool, &du_tool, &chmod_tool, &chown_tool,
                                    &cp_tool,   &rm_tool, &sync_tool};

static const Tool *named(const char *word) {
  const char *slash = strrchr(word, '/');
  if (slash) word = slash + 1;
  if (!strncmp(word, "argosy-", 7)) word += 7;
  for (int i = 0; i < 7; i++)
    if (!strcmp(word, tools[i]->name) || (word[0] == 'p' && !strcmp(word + 1, tools[i]->name))) return tools[i];
  return 0;
}

// Takes what every tool knows out of the arguments: --threads N, --progress, --json, --dryrun.
static int common(int argc, char **argv) {
  uint64_t threads = 0;
  bool progress = false, past = false;
  int kept = 1;
  for (int i = 1; i < argc; i++) {
    char *word = argv[i];
    past |= !strcmp(word, "--");
    if (past) argv[kept++] = word;
    else if (!strcmp(word, "--json")) opt_json = true;
    else if (!strcmp(word, "--progress")) progress = true;
    else if (!strcmp(word, "--dryrun") || !strcmp(word, "--dry-run")) opt_dryrun = true;
    else if (!strcmp(word, "--threads") && i + 1 < argc) {
      if (!parse_number(argv[++i], &threads) || !threads) return -usage("not a number of threads:", argv[i]);
    } else argv[kept++] = word;
  }
  argv[kept] = 0;
  pool_options((long)threads, progress);
  return kept;
}

int main(int argc, char **argv) {
  tool = named(argv[0]);
  if (!tool && argc > 1 && (tool = named(argv[1]))) argc--, argv++;
  if (!tool) {
    static const char text[] = "usage: pf find|du|chmod|chown|cp|rm|sync ...\n";
    return write(2, text, sizeof text - 1) < 0 ? 2 : 2;
  }
  argc = common(argc, argv);
  if (argc < 0) return -argc;
  umask_bits = umask(0);
  umask(umask_bits);
  int status = tool->start(argc, argv);
  if (status >= 0) { flush_output(); return status; }
  run_pool();
  status = tool->finish();
  flush_output();
  if (output_failed()) { complain("cannot write", "standard output", 0); return tool->trouble; }
  return status;
}
