// find: tests and actions of GNU find that are in common use. An expression is a tree that every thread evaluates.
#include "pf.h"

typedef enum {
  AND, OR, NOT, YES, NO, NAME, INAME, PATH, TYPE, SIZE, TIME, MINUTES, NEWER, EMPTY, PERM, UID, GID, LINKS, INUM,
  PRINT, PRINT0, PRUNE, DELETE, QUIT
} What;

typedef struct Node {
  What what;
  struct Node *a, *b;
  const char *text;
  uint64_t number;
  char sign;          // '+', '-', '/', or 0: exactly
  uint64_t unit;
  char which;         // a, c, m: of times
  struct timespec at;
} Node;

// What is looked at; its stat is asked for when a test needs it.
typedef struct Entry {
  Dir *dir;
  int at;
  const char *name, *path;
  int type, depth;
  bool have, pruned;
  struct stat st;
} Entry;

static struct { char **words; int count, at; bool acts, deep, wrong; const char *why; } parser;
static Node *expression;
static uint64_t deepest = UINT64_MAX, shallowest;
static time_t now;

static Node *node(What what) {
  Node *made = calloc(1, sizeof *made);
  made->what = what;
  return made;
}

static Node *wrong(const char *why, const char *word) {
  if (!parser.wrong) usage(why, word);
  parser.wrong = true;
  return node(YES);
}

static char *next(void) { return parser.at < parser.count ? parser.words[parser.at] : 0; }

static char *argument(const char *of) {
  char *word = next();
  if (word) { parser.at++; return word; }
  wrong("missing argument to", of);
  return "";
}

// [+-]N; `more`: what may follow the digits.
static Node *number(What what, const char *of, const char *more) {
  Node *made = node(what);
  char *word = argument(of), digits[32] = {0}, *at = word;
  if (*at == '+' || *at == '-') made->sign = *at++;
  size_t size = strspn(at, "0123456789");
  made->text = at + size;
  if (!size || size > 18 || (at[size] && (!more[0] || !strchr(more, at[size]) || at[size + 1])))
    return wrong("not a number:", word);
  memcpy(digits, at, size);
  parse_number(digits, &made->number);
  return made;
}

static Node *size_test(const char *of) {
  static const char letters[] = "cwbkMG";
  static const uint64_t units[] = {1, 2, 512, 1024, 1 << 20, 1 << 30};
  Node *made = number(SIZE, of, letters);
  made->unit = made->text && *made->text ? units[strchr(letters, *made->text) - letters] : 512;
  return made;
}

static Node *perm_test(const char *of) {
  Node *made = node(PERM);
  char *word = argument(of);
  if (*word == '-' || *word == '/') made->sign = *word++;
  Mode *mode = parse_mode(word);
  if (!mode) return wrong("not a mode:", word);
  made->number = apply_mode(mode, 0, false, 0);
  return made;
}

static Node *owner_test(What what, const char *of) {
  if (strstr(of, "id")) return number(what, of, "");
  Node *made = node(what);
  uint32_t id = 0;
  char *word = argument(of);
  if (!id_of(word, what == GID, &id)) return wrong("nobody is called", word);
  made->number = id;
  return made;
}

static Node *newer_test(const char *of) {
  Node *made = node(NEWER);
  struct stat st;
  char *word = argument(of);
  if (*word && lstat(word, &st)) return wrong("cannot access", word);
  made->at = st.st_mtim;
  return made;
}

static Node *type_test(const char *of) {
  Node *made = node(TYPE);
  made->text = argument(of);
  for (const char *at = made->text; *at; at += 1 + (at[1] == ','))
    if (!strchr("fdlbcps", *at)) return wrong("unknown argument to -type:", at);
  return made;
}

static Node *alternatives(void);

static Node *text_test(What what, const char *of) {
  Node *made = node(what);
  made->text = argument(of);
  return made;
}

static Node *action(What what) {
  parser.acts |= what != PRUNE && what != QUIT;
  parser.deep |= what == DELETE;
  return node(what);
}

static Node *limit_option(uint64_t *into, const char *of) {
  char *word = argument(of);
  if (!parse_number(word, into)) return wrong("not a number:", word);
  return node(YES);
}

static Node *primary(void) {
  char *word = argument("an operator");
  static const struct { const char *word; What what; char kind; } table[] = {
      {"-name", NAME, 't'},    {"-iname", INAME, 't'}, {"-path", PATH, 't'},     {"-wholename", PATH, 't'},
      {"-links", LINKS, 'n'},  {"-inum", INUM, 'n'},   {"-uid", UID, 'o'},       {"-gid", GID, 'o'},
      {"-user", UID, 'o'},     {"-group", GID, 'o'},   {"-print", PRINT, 'a'},   {"-print0", PRINT0, 'a'},
      {"-prune", PRUNE, 'a'},  {"-delete", DELETE, 'a'}, {"-quit", QUIT, 'a'},   {"-empty", EMPTY, '-'},
      {"-true", YES, '-'},     {"-false", NO, '-'}};
  for (unsigned i = 0; i < sizeof table / sizeof *table; i++) {
    if (strcmp(word, table[i].word)) continue;
    switch (table[i].kind) {
      case 't': return text_test(table[i].what, word);
      case 'n': return number(table[i].what, word, "");
      case 'o': return owner_test(table[i].what, word);
      case 'a': return action(table[i].what);
      default: return node(table[i].what);
    }
  }
  if (!strcmp(word, "(")) {
    Node *inner = alternatives();
    if (!next() || strcmp(next(), ")")) return wrong("missing", ")");
    parser.at++;
    return inner;
  }
  if (!strcmp(word, "!") || !strcmp(word, "-not")) { Node *made = node(NOT); made->a = primary(); return made; }
  if (!strcmp(word, "-type")) return type_test(word);
  if (!strcmp(word, "-size")) return size_test(word);
  if (!strcmp(word, "-perm")) return perm_test(word);
  if (!strcmp(word, "-newer")) return newer_test(word);
  if (!strcmp(word, "-maxdepth")) return limit_option(&deepest, word);
  if (!strcmp(word, "-mindepth")) return limit_option(&shallowest, word);
  if (!strcmp(word, "-depth")) { parser.deep = true; return node(YES); }
  if (!strcmp(word, "-xdev") || !strcmp(word, "-mount")) { opt_one_fs = true; return node(YES); }
  if (word[0] == '-' && strchr("acm", word[1]) && (!strcmp(word + 2, "time") || !strcmp(word + 2, "min"))) {
    Node *made = number(word[2] == 't' ? TIME : MINUTES, word, "");
    made->which = word[1];
    return made;
  }
  return wrong("unknown predicate", word);
}

static Node *conjunction(void) {
  Node *left = primary();
  for (char *word; !parser.wrong && (word = next()) && strcmp(word, ")") && strcmp(word, "-o") && strcmp(word, "-or");) {
    if (!strcmp(word, "-a") || !strcmp(word, "-and")) parser.at++;
    Node *made = node(AND);
    made->a = left;
    made->b = primary();
    left = made;
  }
  return left;
}

static Node *alternatives(void) {
  Node *left = conjunction();
  for (char *word; !parser.wrong && (word = next()) && (!strcmp(word, "-o") || !strcmp(word, "-or"));) {
    parser.at++;
    Node *made = node(OR);
    made->a = left;
    made->b = conjunction();
    left = made;
  }
  return left;
}

static bool known(Entry *entry) {
  if (entry->have) return true;
  if (fstatat(entry->at, entry->name, &entry->st, AT_SYMLINK_NOFOLLOW)) {
    complain("cannot access", entry->path, errno);
    return false;
  }
  return entry->have = true;
}

static bool compare(const Node *test, uint64_t value) {
  return test->sign == '+' ? value > test->number : test->sign == '-' ? value < test->number : value == test->number;
}

static bool in_time(const Node *test, const struct stat *st) {
  const struct timespec *at = test->which == 'a' ? &st->st_atim : test->which == 'c' ? &st->st_ctim : &st->st_mtim;
  int64_t age = now - at->tv_sec;  // whole seconds; days count when they are over, minutes when they begin
  int64_t units = test->what == TIME ? (age >= 0 ? age / 86400 : -1) : (age >= 0 ? (age + 59) / 60 : 0);
  if (units < 0) return test->sign == '-';
  return compare(test, (uint64_t)units);
}

static bool is_empty(Entry *entry) {
  if (entry->type == DT_REG) return known(entry) && entry->st.st_size == 0;
  if (entry->type != DT_DIR) return false;
  int fd = open_dir_at(entry->at, entry->name);
  char block[2048];
  Names names = {fd, 0, 0, sizeof block, block};
  bool empty = fd >= 0 && !next_name(&names);
  if (fd < 0 || names.got < 0) { complain("cannot read directory", entry->path, errno); empty = false; }
  if (fd >= 0) close(fd);
  return empty;
}

static bool permitted(const Node *test, const struct stat *st) {
  mode_t mode = st->st_mode & 07777, wanted = test->number;
  return test->sign == '-' ? (mode & wanted) == wanted : test->sign == '/' ? !wanted || mode & wanted : mode == wanted;
}

static bool of_type(const Node *test, int type) {
  char letter = type == DT_REG ? 'f' : type == DT_DIR ? 'd' : type == DT_LNK ? 'l' : type == DT_BLK ? 'b'
              : type == DT_CHR ? 'c' : type == DT_FIFO ? 'p' : type == DT_SOCK ? 's' : '?';
  return strchr(test->text, letter) != 0;
}

static bool print(Entry *entry, char end) {
  if (opt_json) {
    static const char *const kinds[] = {"other", "fifo", "char", "", "directory", "", "block",
                                        "", "file", "", "link", "", "socket"};  // by DT_...
    put("{\"path\": ");
    put_json(entry->path);
    put(", \"type\": \"");
    put(entry->type >= 0 && entry->type <= 12 ? kinds[entry->type] : "other");
    put("\"");
    if (entry->have) put(", \"size\": "), put_number(entry->st.st_size);
    put("}");
    end = '\n';
  } else {
    put(entry->path);
  }
  end_record(end);
  return true;
}

static bool delete(Entry *entry) {
  if (entry->depth == 0 && !strcmp(entry->name, ".")) return true;
  if (opt_dryrun) { told_change("remove", entry->path, 0); return true; }
  if (!unlinkat(entry->at, entry->name, entry->type == DT_DIR ? AT_REMOVEDIR : 0)) { n_changed++; return true; }
  complain("cannot delete", entry->path, errno);
  return false;
}

static bool holds(const Node *test, Entry *entry) {
  switch (test->what) {
    case AND: return holds(test->a, entry) && holds(test->b, entry);
    case OR: return holds(test->a, entry) || holds(test->b, entry);
    case NOT: return !holds(test->a, entry);
    case YES: return true;
    case NO: return false;
    case NAME: case INAME: {
      const char *slash = entry->depth ? 0 : strrchr(entry->name, '/');
      const char *name = slash && slash[1] ? slash + 1 : entry->name;
      return matches(test->text, name, test->what == INAME);
    }
    case PATH: return matches(test->text, entry->path, false);
    case TYPE: return of_type(test, entry->type);
    case SIZE: return known(entry) && compare(test, (entry->st.st_size + test->unit - 1) / test->unit);
    case TIME: case MINUTES: return known(entry) && in_time(test, &entry->st);
    case NEWER:
      return known(entry) && (entry->st.st_mtim.tv_sec > test->at.tv_sec || (entry->st.st_mtim.tv_sec == test->at.tv_sec &&
             entry->st.st_mtim.tv_nsec > test->at.tv_nsec));
    case EMPTY: return is_empty(entry);
    case PERM: return known(entry) && permitted(test, &entry->st);
    case UID: return known(entry) && compare(test, entry->st.st_uid);
    case GID: return known(entry) && compare(test, entry->st.st_gid);
    case LINKS: return known(entry) && compare(test, entry->st.st_nlink);
    case INUM: return known(entry) && compare(test, entry->st.st_ino);
    case PRINT: return print(entry, '\n');
    case PRINT0: return print(entry, 0);
    case PRUNE: return entry->pruned = true;
    case DELETE: return delete(entry);
    case QUIT: stop_early(); return true;
  }
  return false;
}

static bool look_at(Entry *entry) {
  if ((uint64_t)entry->depth >= shallowest) holds(expression, entry);
  return !entry->pruned && (uint64_t)entry->depth < deepest;
}

static bool at_dir(Dir *dir) {
  bool temporary;
  int at = parent_grip(dir, 0, &temporary);
  if (at == -1) { complain("cannot access", dir->path, errno); return false; }
  Entry entry = {dir, at, dir->name, dir->path, DT_DIR, dir->depth, dir->named, false, dir->st};
  bool go = look_at(&entry);
  let_go(at, temporary);
  return go;
}

static bool before(Dir *dir) {
  if (parser.deep) {
    if ((uint64_t)dir->depth < deepest) return true;
    return false;
  }
  return at_dir(dir);
}

static void leave(Dir *dir) {
  if (parser.deep && !stopping()) at_dir(dir);
}

static void entry(Dir *dir, int fd, const char *name, int type) {
  if ((uint64_t)dir->depth + 1 > deepest) return;
  Entry found;
  found.dir = dir, found.at = fd, found.name = name, found.path = path_of(name), found.type = type;
  found.depth = dir->depth + 1, found.have = found.pruned = false;
  look_at(&found);
}

static int start(int argc, char **argv) {
  int paths = 1;
  while (paths < argc && argv[paths][0] != '-' && argv[paths][0] != '(' && argv[paths][0] != '!') paths++;
  parser.words = argv, parser.count = argc, parser.at = paths;
  now = time(0);
  expression = paths < argc ? alternatives() : node(YES);
  if (!parser.wrong && next()) wrong("what is this:", next());
  if (parser.wrong) return 1;
  if (!parser.acts) {
    Node *both = node(AND);
    both->a = expression, both->b = node(PRINT);
    expression = both;
  }
  char *here[] = {"."};
  char **roots = paths > 1 ? argv + 1 : here;
  for (int i = 0; i < (paths > 1 ? paths - 1 : 1); i++) {
    struct stat st;
    if (lstat(roots[i], &st)) { complain("cannot access", roots[i], errno); continue; }
    if (S_ISDIR(st.st_mode)) { walk_root(roots[i], 0, &st); continue; }
    Entry found = {0, AT_FDCWD, roots[i], roots[i], IFTODT(st.st_mode), 0, true, false, st};
    n_entries++;
    look_at(&found);
  }
  return -1;
}

static int finish(void) { return n_errors > 0; }

const Tool find_tool = {.name = "find", .start = start, .before = before, .entry = entry, .leave = leave,
                        .finish = finish, .slices = true, .trouble = 1};
