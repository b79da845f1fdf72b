// scanners: finds SIP that tools for scanning send, by its User-Agent, and gives packets without a correlation id their
// Call-ID as one.
//
// This file is the whole filter. What the host can do for it stands in bindings/filter.h.

#include "bindings/filter.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
  filter_string_t text;
  bool logged;
} prefix_t;

// Set by init, once: the memory of an instance lasts from one call to the next.
static prefix_t *prefixes;
static size_t prefixes_len;
static enum { DROP, SKIP, MARK } action = DROP;
static hep_filter_metrics_own_counter_t found;

// Like printf, into memory of its own. Without memory the call fails, and the host makes a new instance.
static char *format(const char *format, ...) {
  va_list values;
  va_start(values, format);
  char *text;
  if (vasprintf(&text, format, values) < 0) {
    abort();
  }
  va_end(values);
  return text;
}

static void log_line(hep_filter_log_level_t level, const char *line) {
  filter_string_t text;
  filter_string_set(&text, line);
  hep_filter_log_log(level, &text);
}

// What init returns when it fails. The host frees the text after it has read it.
static bool failed(filter_string_t *err, char *text) {
  filter_string_set(err, text);
  return false;
}

static bool is(filter_string_t text, const char *other) {
  return text.len == strlen(other) && memcmp(text.ptr, other, text.len) == 0;
}

static uint8_t lower(uint8_t c) {
  return c >= 'A' && c <= 'Z' ? c + ('a' - 'A') : c;
}

static bool is_space(uint8_t c) {
  return c == ' ' || (c >= '\t' && c <= '\r');
}

static bool begins_with(filter_list_u8_t text, filter_string_t prefix) {
  if (text.len < prefix.len) {
    return false;
  }
  for (size_t i = 0; i < prefix.len; i++) {
    if (lower(text.ptr[i]) != lower(prefix.ptr[i])) {
      return false;
    }
  }
  return true;
}

static void add_prefix(filter_string_t text) {
  while (text.len > 0 && is_space(text.ptr[0])) {
    text.ptr++;
    text.len--;
  }
  while (text.len > 0 && is_space(text.ptr[text.len - 1])) {
    text.len--;
  }
  if (text.len == 0) {
    return;
  }
  prefixes = realloc(prefixes, (prefixes_len + 1) * sizeof(prefix_t));
  if (prefixes == NULL) {
    abort();
  }
  prefixes[prefixes_len++] = (prefix_t){.text = text};
}

// The prefixes point into the list, which is therefore never freed.
static void add_prefixes(filter_string_t list) {
  size_t begin = 0;
  for (size_t i = 0; i <= list.len; i++) {
    if (i == list.len || list.ptr[i] == ',') {
      add_prefix((filter_string_t){list.ptr + begin, i - begin});
      begin = i + 1;
    }
  }
}

bool exports_hep_filter_callbacks_init(filter_string_t *err) {
  filter_list_tuple2_string_string_t config;
  hep_filter_config_all(&config);
  for (size_t i = 0; i < config.len; i++) {
    filter_string_t key = config.ptr[i].f0;
    if (!is(key, "agents") && !is(key, "action")) {
      return failed(err, format("config key \"%.*s\" is unknown; known here: agents, action", (int)key.len, key.ptr));
    }
  }

  filter_string_t agents;
  filter_string_set(&agents, "friendly-scanner, sipvicious, sipcli, pplsip");
  for (size_t i = 0; i < config.len; i++) {
    filter_string_t value = config.ptr[i].f1;
    if (is(config.ptr[i].f0, "agents")) {
      agents = value;
    } else if (is(value, "skip")) {
      action = SKIP;
    } else if (is(value, "mark")) {
      action = MARK;
    } else if (!is(value, "drop")) {
      return failed(err,
                    format("config key \"action\": \"%.*s\" is not drop, skip or mark", (int)value.len, value.ptr));
    }
  }
  add_prefixes(agents);

  // Only SIP comes to us then: packets that we would let pass anyway cost nothing.
  uint8_t sip[] = {1};
  filter_list_u8_t types = {sip, 1};
  hep_filter_subscription_subscribe_error_t subscribe_error;
  if (!hep_filter_subscription_payload_types(&types, &subscribe_error)) {
    return failed(err, format("cannot subscribe"));
  }

  filter_string_t name, help, label;
  filter_string_set(&name, "found");
  filter_string_set(&help, "SIP of scanning programs");
  filter_string_set(&label, "agent");
  filter_list_string_t labels = {&label, 1};
  hep_filter_metrics_metric_error_t metric_error;
  if (!hep_filter_metrics_static_counter_declare(&name, &help, &labels, &found, &metric_error)) {
    return failed(err, format("cannot declare a metric"));
  }
  return true;
}

// A header's value, to be freed, if the packet has it.
static bool header(hep_filter_packets_borrow_batch_t batch, uint32_t i, const char *name, filter_list_u8_t *value) {
  filter_string_t text;
  filter_string_set(&text, name);
  return hep_filter_packets_method_batch_sip_header(batch, i, &text, value);
}

// The first of the prefixes that begins the packet's User-Agent, or NULL.
static prefix_t *scanner(hep_filter_packets_borrow_batch_t batch, uint32_t i) {
  filter_list_u8_t agent;
  if (!header(batch, i, "User-Agent", &agent) && !header(batch, i, "Server", &agent)) {
    return NULL;
  }
  prefix_t *match = NULL;
  for (size_t p = 0; p < prefixes_len && match == NULL; p++) {
    if (begins_with(agent, prefixes[p].text)) {
      match = &prefixes[p];
    }
  }
  filter_list_u8_free(&agent);
  return match;
}

static void count(prefix_t *prefix, uint32_t agent_id) {
  filter_list_string_t labels = {&prefix->text, 1};
  hep_filter_metrics_metric_error_t error;
  if (!hep_filter_metrics_method_counter_add(hep_filter_metrics_borrow_counter(found), &labels, 1, &error)) {
    // Too many series, perhaps: no reason to let a scanner through.
    hep_filter_metrics_metric_error_free(&error);
  }
  if (!prefix->logged) {
    prefix->logged = true;
    char *line = format("found %.*s, agent id %u", (int)prefix->text.len, prefix->text.ptr, (unsigned)agent_id);
    log_line(HEP_FILTER_LOG_LEVEL_INFO, line);
    free(line);
  }
}

static void mark(hep_filter_packets_borrow_batch_t batch, uint32_t i) {
  hep_filter_types_chunk_id_t agent_name = {.vendor = 0, .kind = 0x13};
  filter_list_u8_t body = {(uint8_t *)"scanner", strlen("scanner")};
  hep_filter_types_edit_error_t error;
  if (!hep_filter_packets_method_batch_set_chunk(batch, i, &agent_name, &body, &error)) {
    hep_filter_types_edit_error_free(&error);
    log_line(HEP_FILTER_LOG_LEVEL_WARN, "cannot mark a packet");
  }
}

static void correlate(hep_filter_packets_borrow_batch_t batch, uint32_t i) {
  filter_list_u8_t id;
  if (hep_filter_packets_method_batch_correlation_id(batch, i, &id)) {
    filter_list_u8_free(&id);
    return;
  }
  if (!header(batch, i, "Call-ID", &id)) {
    return;
  }
  hep_filter_types_edit_error_t error;
  if (id.len > 0 && !hep_filter_packets_method_batch_set_correlation_id(batch, i, &id, &error)) {
    hep_filter_types_edit_error_free(&error);
    log_line(HEP_FILTER_LOG_LEVEL_WARN, "cannot set a correlation id");
  }
  filter_list_u8_free(&id);
}

static hep_filter_types_verdict_t decide(hep_filter_packets_borrow_batch_t batch, uint32_t i, uint32_t agent_id) {
  prefix_t *prefix = scanner(batch, i);
  if (prefix != NULL) {
    count(prefix, agent_id);
    if (action == DROP) {
      return HEP_FILTER_TYPES_VERDICT_DROP;
    }
    if (action == SKIP) {
      return HEP_FILTER_TYPES_VERDICT_SKIP;
    }
    mark(batch, i);
  }
  correlate(batch, i);
  return HEP_FILTER_TYPES_VERDICT_PASS;
}

void exports_hep_filter_callbacks_on_batch(exports_hep_filter_callbacks_borrow_batch_t batch,
                                           exports_hep_filter_callbacks_list_verdict_t *ret) {
  // One call for the numbers of all packets: host calls are what costs.
  hep_filter_packets_list_scalars_t packets;
  hep_filter_packets_method_batch_scalars(batch, &packets);
  // The host frees the verdicts.
  ret->len = packets.len;
  ret->ptr = malloc(packets.len);
  if (ret->ptr == NULL) {
    abort();
  }
  for (size_t i = 0; i < packets.len; i++) {
    ret->ptr[i] = decide(batch, i, packets.ptr[i].agent_id);
  }
  hep_filter_packets_list_scalars_free(&packets);
}
