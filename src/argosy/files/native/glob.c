// Patterns of names: *, ?, [a-z], [!x], [[:digit:]], \x. A character is one of UTF-8, or a byte that is none. Letters
// of ASCII only are folded.
#include "pf.h"

static unsigned next_character(const char **at) {
  const unsigned char *text = (const unsigned char *)*at;
  int size = utf8_size(text);
  *at += size ? size : 1;
  if (size < 2) return *text;
  unsigned code = *text & (0xff >> (size + 1));
  while (--size) code = code << 6 | (*++text & 0x3f);
  return code + 0x100 * (code < 0x100);
}

static unsigned folded(unsigned code, bool fold) { return fold && code >= 'A' && code <= 'Z' ? code + 32 : code; }

static bool in_class(const char *name, size_t size, unsigned code) {
  static const struct { const char *name, *ranges; } classes[] = {
      {"alpha", "azAZ"}, {"digit", "09"}, {"alnum", "azAZ09"}, {"upper", "AZ"}, {"lower", "az"},
      {"space", "\t\r  "}, {"punct", "!/:@[`{~"}, {"xdigit", "09afAF"}};
  for (int i = 0; i < 8; i++) {
    if (strlen(classes[i].name) != size || memcmp(classes[i].name, name, size)) continue;
    for (const char *at = classes[i].ranges; *at; at += 2)
      if (code >= (unsigned char)at[0] && code <= (unsigned char)at[1]) return true;
  }
  return false;
}

// The bracket that `*at` stands behind. False: it is not closed, so that `[` is itself.
static bool bracket(const char **pattern, unsigned code, bool fold, bool *match) {
  const char *at = *pattern;
  bool negated = *at == '!' || *at == '^', found = false;
  at += negated;
  for (bool first = true; *at != ']' || first; first = false) {
    if (!*at) return false;
    const char *end = at[0] == '[' && at[1] == ':' ? strstr(at + 2, ":]") : 0;
    if (end) {
      found |= in_class(at + 2, end - at - 2, code);
      at = end + 2;
      continue;
    }
    if (*at == '\\' && at[1]) at++;
    unsigned low = next_character(&at), high = low;
    if (*at == '-' && at[1] && at[1] != ']') {
      at++;
      if (*at == '\\' && at[1]) at++;
      high = next_character(&at);
    }
    unsigned other = fold && code >= 'a' && code <= 'z' ? code - 32 : code;
    found |= (code >= low && code <= high) || (other >= low && other <= high);
  }
  *pattern = at + 1;
  *match = found != negated;
  return true;
}

bool matches(const char *pattern, const char *text, bool fold) {
  const char *star = 0, *tried = 0;
  while (*text || *pattern == '*') {
    if (*pattern == '*') { star = ++pattern; tried = text; continue; }
    const char *next = text, *rest = pattern;
    unsigned code = folded(next_character(&next), fold);
    bool match = false, special = *rest == '[';
    if (special) { rest++; special = bracket(&rest, code, fold, &match); }
    if (!special) {
      rest = pattern;
      if (*rest == '?') rest++, match = true;
      else if (*rest) rest += *rest == '\\' && rest[1], match = folded(next_character(&rest), fold) == code;
    }
    if (match) { pattern = rest; text = next; continue; }
    if (!star) return false;
    pattern = star;
    next_character(&tried);
    text = tried;
  }
  return !*pattern;
}
