// Modes as people write them (0644, u+rwX,g=u,o=), numbers, and names of users and groups.
#include "pf.h"

typedef struct Clause { mode_t who, bits; char op; bool x_if, copy_from, no_who; mode_t source; } Clause;
struct Mode { bool octal; mode_t value; bool keeps_special; int count; Clause clauses[64]; };

Mode *mode_of(mode_t value) {
  Mode *mode = calloc(1, sizeof *mode);
  mode->octal = true;
  mode->value = value & 07777;
  return mode;
}

static Mode *parse_octal(const char *text) {
  mode_t value = 0;
  size_t digits = strlen(text);
  for (const char *at = text; *at; at++) {
    if (*at < '0' || *at > '7') return 0;
    value = value * 8 + (*at - '0');
    if (value > 07777) return 0;
  }
  Mode *mode = mode_of(value);
  mode->keeps_special = digits < 5;  // set-id bits of folders stay, as chmod's do, unless there are five digits
  return mode;
}

// One action of a clause: an operator and what follows it.
static const char *parse_action(const char *at, Clause *clause) {
  clause->op = *at++;
  if (*at == 'u' || *at == 'g' || *at == 'o') {
    clause->copy_from = true;
    clause->source = *at == 'u' ? 0700 : *at == 'g' ? 0070 : 0007;
    return at + 1;
  }
  for (;; at++) switch (*at) {
    case 'r': clause->bits |= 0444; break;
    case 'w': clause->bits |= 0222; break;
    case 'x': clause->bits |= 0111; break;
    case 'X': clause->x_if = true; break;
    case 's': clause->bits |= 06000; break;
    case 't': clause->bits |= 01000; break;
    default: return at;
  }
}

Mode *parse_mode(const char *text) {
  if (text[0] >= '0' && text[0] <= '9') return parse_octal(text);
  Mode *mode = calloc(1, sizeof *mode);
  for (const char *at = text;;) {
    mode_t who = 0;
    for (;; at++) {
      if (*at == 'u') who |= 04700;
      else if (*at == 'g') who |= 02070;
      else if (*at == 'o') who |= 01007;
      else if (*at == 'a') who |= 07777;
      else break;
    }
    if (!*at || !strchr("+-=", *at)) { free(mode); return 0; }
    while (*at && strchr("+-=", *at)) {
      if (mode->count == 64) { free(mode); return 0; }
      Clause *clause = &mode->clauses[mode->count++];
      clause->no_who = !who;
      clause->who = who;
      at = parse_action(at, clause);
    }
    if (!*at) return mode;
    if (*at++ != ',') { free(mode); return 0; }
  }
}

// The mode after one action. What a folder has of set-id bits changes only when they are named.
static mode_t apply_clause(const Clause *clause, mode_t old, bool folder, mode_t umask_bits) {
  mode_t mentioned = clause->no_who ? clause->bits : clause->who & clause->bits;
  mode_t omitted = folder ? 06000 & ~mentioned : 0, bits = clause->bits;
  if (clause->copy_from) {
    mode_t from = old & clause->source, rwx = (from | from >> 3 | from >> 6) & 7;
    bits = rwx | rwx << 3 | rwx << 6;
  }
  if (clause->x_if && (folder || old & 0111)) bits |= 0111;
  bits &= (clause->no_who ? ~umask_bits : clause->who) & ~omitted;
  if (clause->op == '+') return old | bits;
  if (clause->op == '-') return old & ~bits;
  return (old & ((clause->no_who ? 0 : ~clause->who) | omitted)) | bits;
}

mode_t apply_mode(const Mode *mode, mode_t old, bool folder, mode_t umask_bits) {
  old &= 07777;
  if (mode->octal) return mode->value | (folder && mode->keeps_special ? old & 06000 : 0);
  for (int i = 0; i < mode->count; i++) old = apply_clause(&mode->clauses[i], old, folder, umask_bits) & 07777;
  return old;
}

// Not through a link, with AT_SYMLINK_NOFOLLOW. Older C libraries do that in four calls; kernels of today have one.
int set_mode(int at, const char *name, mode_t mode, int flags) {
#ifdef __GLIBC__
  static atomic_bool missing;
  if (flags && !missing) {
    long done = syscall(452, at, name, mode, flags);  // fchmodat2
    if (!done || errno != ENOSYS) return (int)done;
    missing = true;
  }
#endif
  return fchmodat(at, name, mode, flags);
}

bool parse_number(const char *text, uint64_t *into) {
  if (!*text) return false;
  uint64_t number = 0;
  for (; *text; text++) {
    if (*text < '0' || *text > '9' || number > UINT64_MAX / 10 - 10) return false;
    number = number * 10 + (*text - '0');
  }
  *into = number;
  return true;
}

// The names in /etc/passwd and /etc/group. Others (of a directory service) are looked up before the tool starts.
static char *names[2];

static const char *load(bool group) {
  if (names[group]) return names[group];
  int fd = open(group ? "/etc/group" : "/etc/passwd", O_RDONLY | O_CLOEXEC);
  size_t room = 1 << 20, used = 0;
  char *text = malloc(room + 1);
  for (ssize_t got; fd >= 0 && used < room && (got = read(fd, text + used, room - used)) > 0;) used += got;
  if (fd >= 0) close(fd);
  text[used] = 0;
  return names[group] = text;
}

// The number in the third field of a line; false: it has none.
static bool third_field(const char *line, uint32_t *number) {
  for (int colons = 0; *line && *line != '\n';)
    if (*line++ == ':' && ++colons == 2) break;
  *number = 0;
  const char *first = line;
  for (; *line >= '0' && *line <= '9'; line++) *number = *number * 10 + (*line - '0');
  return line > first;
}

bool id_of(const char *name, bool group, uint32_t *id) {
  uint64_t number;
  size_t size = strlen(name);
  for (const char *line = load(group); line && *line; line = strchr(line, '\n'), line += line != 0) {
    if (strncmp(line, name, size) || line[size] != ':') continue;
    if (third_field(line, id)) return true;
  }
  if (!parse_number(name + (*name == '+'), &number) || number > UINT32_MAX - 1) return false;
  *id = (uint32_t)number;
  return true;
}
