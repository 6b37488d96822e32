// Output, messages, numbers. Each thread fills a buffer of its own and writes whole records.
#include "pf.h"

enum { FULL = 32 << 10 };

__thread Mine mine = {.number = -1};
static pthread_mutex_t writing = PTHREAD_MUTEX_INITIALIZER;
static atomic_bool output_error, ordered;

static void write_all(int fd, const char *data, size_t size) {
  while (size) {
    ssize_t done = write(fd, data, size);
    if (done < 0 && errno == EINTR) continue;
    if (done < 0) { if (fd == 1) output_error = true; return; }
    data += done, size -= done;
  }
}

void put_bytes(const char *data, size_t size) {
  if (mine.used + size > mine.room) mine.out = realloc(mine.out, mine.room = (mine.used + size) * 2 + 1024);
  memcpy(mine.out + mine.used, data, size);
  mine.used += size;
}

void put(const char *text) { put_bytes(text, strlen(text)); }

char *digits(char *at, uint64_t number) {
  if (number >= 10) at = digits(at, number / 10);
  *at = '0' + number % 10;
  return at + 1;
}

void put_number(uint64_t number) {
  char text[24];
  put_bytes(text, digits(text, number) - text);
}

static void put_hex4(unsigned code) {
  char text[6] = {'\\', 'u'};
  for (int i = 0; i < 4; i++) text[2 + i] = "0123456789abcdef"[code >> (12 - 4 * i) & 15];
  put_bytes(text, 6);
}

int utf8_size(const unsigned char *at) {
  int size = at[0] >= 0xf0 && at[0] <= 0xf4 ? 4 : at[0] >= 0xe0 ? 3 : at[0] >= 0xc2 ? 2 : 0;
  if (at[0] > 0xf4 || (at[0] & 0xc0) == 0x80) return 0;
  for (int i = 1; i < size; i++)
    if ((at[i] & 0xc0) != 0x80) return 0;
  if (size == 3 && ((at[0] == 0xe0 && at[1] < 0xa0) || (at[0] == 0xed && at[1] > 0x9f))) return 0;
  if (size == 4 && ((at[0] == 0xf0 && at[1] < 0x90) || (at[0] == 0xf4 && at[1] > 0x8f))) return 0;
  return size;
}

// Bytes that are no UTF-8 become lone surrogates, as Python's `surrogateescape` does.
void put_json(const char *text) {
  put("\"");
  for (const unsigned char *at = (const unsigned char *)text; *at;) {
    if (*at == '"' || *at == '\\') { put_bytes("\\", 1); put_bytes((const char *)at++, 1); continue; }
    if (*at < 0x20 || *at == 0x7f) { put_hex4(*at++); continue; }
    if (*at < 0x80) { put_bytes((const char *)at++, 1); continue; }
    int size = utf8_size(at);
    if (size) put_bytes((const char *)at, size), at += size;
    else put_hex4(0xdc00 + *at++);
  }
  put("\"");
}

// From now on records are written in the order in which they end, whichever thread ends them.
void ordered_output(void) { ordered = true; }

// To where all threads' records meet: the descriptor, or a shared buffer where their order counts.
static void hand_on(const char *data, size_t size, bool now) {
  static struct { char *data; size_t used, room; } shared;
  pthread_mutex_lock(&writing);
  if (!ordered) {
    write_all(1, data, size);
  } else {
    if (shared.used + size > shared.room)
      shared.data = realloc(shared.data, shared.room = (shared.used + size) * 2 + 1024);
    memcpy(shared.data + shared.used, data, size);
    shared.used += size;
    if (now || shared.used > FULL) write_all(1, shared.data, shared.used), shared.used = 0;
  }
  pthread_mutex_unlock(&writing);
}

void flush_output(void) {
  if (!mine.whole && !ordered) return;
  hand_on(mine.out, mine.whole, true);
  if (mine.used > mine.whole) memmove(mine.out, mine.out + mine.whole, mine.used - mine.whole);
  mine.used -= mine.whole;
  mine.whole = 0;
}

void end_record(char last) {
  static int terminal = -1;
  put_bytes(&last, 1);
  mine.whole = mine.used;
  if (terminal < 0) terminal = isatty(1);
  if (mine.whole > FULL || terminal) flush_output();
  else if (ordered) hand_on(mine.out, mine.whole, false), mine.used = mine.whole = 0;
}

bool output_failed(void) { return output_error; }

static void say(const char *const *parts, int count) {
  char text[8300];
  size_t used = 0;
  for (int i = 0; i < count; i++)
    for (const char *at = parts[i]; at && *at && used < sizeof text - 1; at++) text[used++] = *at;
  text[used++] = '\n';
  write_all(2, text, used);
}

// The texts of libc's own table are 2 KB; these are the errors of files.
static const char *reason(int error) {
  static const struct { int error; const char *text; } table[] = {
      {EPERM, "Operation not permitted"}, {ENOENT, "No such file or directory"}, {EIO, "Input/output error"},
      {EACCES, "Permission denied"}, {EBUSY, "Device or resource busy"}, {EEXIST, "File exists"},
      {EXDEV, "Invalid cross-device link"}, {ENOTDIR, "Not a directory"}, {EISDIR, "Is a directory"},
      {EINVAL, "Invalid argument"}, {EMFILE, "Too many open files"}, {EFBIG, "File too large"},
      {ENOSPC, "No space left on device"}, {EROFS, "Read-only file system"}, {EMLINK, "Too many links"},
      {ENAMETOOLONG, "File name too long"}, {ENOTEMPTY, "Directory not empty"}, {EDQUOT, "Disk quota exceeded"},
      {ELOOP, "Too many levels of symbolic links"}, {ESTALE, "Stale file handle"}, {EOPNOTSUPP, "Operation not supported"}};
  static char number[20] = "error ";
  for (unsigned i = 0; i < sizeof table / sizeof *table; i++)
    if (table[i].error == error) return table[i].text;
  *digits(number + 6, error) = 0;
  return number;
}

// "chmod: cannot access 'x': Permission denied"; names with control characters are shown with `?` for them.
void complain(const char *what, const char *path, int error) {
  n_errors++;
  char shown[4200];
  size_t used = 0;
  for (const char *at = path; *at && used < sizeof shown - 1; at++)
    shown[used++] = (unsigned char)*at < 0x20 || *at == 0x7f ? '?' : *at;
  shown[used] = 0;
  const char *parts[] = {tool->name, ": ", what, " '", shown, "'", error ? ": " : "", error ? reason(error) : ""};
  say(parts, 8);
}

void note(const char *text) {
  const char *parts[] = {tool->name, ": ", text};
  say(parts, 3);
}

int usage(const char *text, const char *word) {
  const char *parts[] = {tool->name, ": ", text, word ? " '" : "", word ? word : "", word ? "'" : ""};
  say(parts, 6);
  return tool->trouble;
}

// What was done, or would be: a line of words, or with --json one object.
void told_change(const char *verb, const char *path, const char *to) {
  n_changed++;
  if (!opt_verbose && !opt_dryrun) return;
  if (opt_json) {
    put("{\"action\": ");
    put_json(verb);
    put(", \"path\": ");
    put_json(path);
    if (to) put(", \"to\": "), put_json(to);
    put("}");
  } else {
    put(opt_dryrun ? "would " : "");
    put(verb);
    put(" '");
    put(path);
    put("'");
    if (to) put(" -> '"), put(to), put("'");
  }
  end_record('\n');
}

void json_summary(void) {
  const char *words[] = {", \"entries\": ", ", \"changed\": ", ", \"bytes\": ", ", \"errors\": ", ", \"threads\": "};
  uint64_t figures[] = {n_entries + n_dirs, n_changed, n_bytes, n_errors, threads_used()};
  put("{\"tool\": ");
  put_json(tool->name);
  for (int i = 0; i < 5; i++) put(words[i]), put_number(figures[i]);
  put(", \"ms\": ");
  put_number((uint64_t)(seconds() * 1000));
  put(opt_dryrun ? ", \"dryrun\": true}" : "}");
  end_record('\n');
}

// As `du -h`: powers of 1024, rounded up, one digit after the point below 10. `into`: 24 bytes.
const char *human(uint64_t bytes, uint64_t unit, char *into) {
  static const char letters[] = "KMGTPE";
  uint64_t tenths, size = bytes * unit, factor = 1;
  int power = -1;
  while (size / factor >= 1024 && power < 5) factor <<= 10, power++;
  tenths = power < 0 ? size * 10 : size / factor * 10 + (size % factor * 10 + factor - 1) / factor;
  if (tenths >= 100) tenths = (tenths + 9) / 10 * 10;
  if (tenths >= 10240 && power < 5) tenths = 10, power++;
  char *at = digits(into, tenths / 10);
  if (power >= 0 && tenths < 100) *at++ = '.', *at++ = '0' + tenths % 10;
  if (power >= 0) *at++ = letters[power];
  *at = 0;
  return into;
}
