// Options as GNU's tools take them: -rf, -d 2, -d2, --max-depth=2, --max-depth 2, and `--` before what only looks so.
#include "pf.h"

static int long_option(char **argv, int argc, int *at, const Option *table, bool (*take)(int, const char *)) {
  const char *word = argv[*at] + 2;
  size_t size = strcspn(word, "=");
  for (const Option *each = table; each->letter; each++) {
    if (!each->word || strlen(each->word) != size || memcmp(each->word, word, size)) continue;
    const char *value = word[size] ? word + size + 1 : 0;
    if (each->valued == 1 && !value && *at + 1 < argc) value = argv[++*at];
    if ((each->valued == 1 && !value) || (!each->valued && value)) return false;
    return take(each->letter, value);
  }
  return false;
}

static bool letters(char **argv, int argc, int *at, const Option *table, bool (*take)(int, const char *)) {
  for (const char *letter = argv[*at] + 1; *letter; letter++) {
    const Option *each = table;
    while (each->letter && each->letter != *letter) each++;
    if (!each->letter) return false;
    if (each->valued != 1) {
      if (!take(*letter, 0)) return false;
      continue;
    }
    const char *value = letter[1] ? letter + 1 : *at + 1 < argc ? argv[++*at] : 0;
    return value && take(*letter, value);
  }
  return true;
}

int take_options(int argc, char **argv, const Option *table, bool (*take)(int letter, const char *value)) {
  int count = 0;
  bool past = false;
  for (int i = 1; i < argc; i++) {
    char *word = argv[i];
    if (past || word[0] != '-' || !word[1]) { argv[++count] = word; continue; }
    if (!strcmp(word, "--")) { past = true; continue; }
    if (!(word[1] == '-' ? long_option(argv, argc, &i, table, take) : letters(argv, argc, &i, table, take))) {
      usage("invalid option or value:", word);
      return -1;
    }
  }
  argv[count + 1] = 0;
  return count;
}
