// scanners: finds SIP that tools for scanning send, by its User-Agent, and gives packets without a correlation id their
// Call-ID as one.
//
// This file is the whole filter. What the host can do for it stands in bindings/, a package for each interface.

package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	config "filter/bindings/hep_filter_config"
	log "filter/bindings/hep_filter_log"
	metrics "filter/bindings/hep_filter_metrics"
	packets "filter/bindings/hep_filter_packets"
	subscription "filter/bindings/hep_filter_subscription"
	types "filter/bindings/hep_filter_types"
)

// Set by start, once: the variables of an instance last from one call to the next.
var (
	agents = "friendly-scanner, sipvicious, sipcli, pplsip"
	action = "drop"

	prefixes []string
	logged   = map[string]bool{}
	found    *metrics.Counter
)

// start is called before anything else. The operator reads the text of its error.
func start() error {
	known := map[string]*string{"agents": &agents, "action": &action}
	for _, entry := range config.All() {
		key, value := entry.F0, entry.F1
		if known[key] == nil {
			return fmt.Errorf("config key \"%s\" is unknown; known here: agents, action", key)
		}
		*known[key] = value
	}
	if !slices.Contains([]string{"drop", "skip", "mark"}, action) {
		return fmt.Errorf("config key \"action\": \"%s\" is not drop, skip or mark", action)
	}
	for prefix := range strings.SplitSeq(agents, ",") {
		if prefix = strings.TrimSpace(prefix); prefix != "" {
			prefixes = append(prefixes, prefix)
		}
	}

	// Only SIP comes to us then: packets that we would let pass anyway cost nothing.
	if subscription.PayloadTypes([]uint8{1}).IsErr() {
		return errors.New("cannot subscribe")
	}
	counter := metrics.CounterDeclare("found", "SIP of scanning programs", []string{"agent"})
	if counter.IsErr() {
		return errors.New("cannot declare a metric")
	}
	found = counter.Ok()
	return nil
}

// onBatch is called with packets, and answers with a verdict for each.
func onBatch(batch *packets.Batch) []types.Verdict {
	// One call for the numbers of all packets: host calls are what costs.
	scalars := batch.Scalars()
	verdicts := make([]types.Verdict, len(scalars))
	for i := range scalars {
		verdicts[i] = decide(batch, uint32(i), scalars[i].AgentId)
	}
	return verdicts
}

func decide(batch *packets.Batch, i uint32, agentID uint32) types.Verdict {
	if prefix, ok := scanner(batch, i); ok {
		count(prefix, agentID)
		switch action {
		case "drop":
			return types.VerdictDrop
		case "skip":
			return types.VerdictSkip
		}
		mark(batch, i)
	}
	correlate(batch, i)
	return types.VerdictPass
}

// scanner finds the first of the prefixes that begins the packet's User-Agent.
func scanner(batch *packets.Batch, i uint32) (string, bool) {
	agent := batch.SipHeader(i, "User-Agent")
	if agent.IsNone() {
		agent = batch.SipHeader(i, "Server")
	}
	if agent.IsNone() {
		return "", false
	}
	for _, prefix := range prefixes {
		if beginsWith(agent.Some(), prefix) {
			return prefix, true
		}
	}
	return "", false
}

// beginsWith does not care about the case of ASCII letters. (strings.EqualFold would fold more than these.)
func beginsWith(text []byte, prefix string) bool {
	if len(text) < len(prefix) {
		return false
	}
	for i := range len(prefix) {
		if lower(text[i]) != lower(prefix[i]) {
			return false
		}
	}
	return true
}

func lower(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		return c + 'a' - 'A'
	}
	return c
}

func count(prefix string, agentID uint32) {
	// An error is too many series, perhaps: no reason to let a scanner through.
	found.Add([]string{prefix}, 1)
	if !logged[prefix] {
		logged[prefix] = true
		log.Log(log.LevelInfo, fmt.Sprintf("found %s, agent id %d", prefix, agentID))
	}
}

func mark(batch *packets.Batch, i uint32) {
	agentName := types.ChunkId{Vendor: 0, Kind: 0x13}
	if batch.SetChunk(i, agentName, []byte("scanner")).IsErr() {
		log.Log(log.LevelWarn, "cannot mark a packet")
	}
}

func correlate(batch *packets.Batch, i uint32) {
	if batch.CorrelationId(i).IsSome() {
		return
	}
	id := batch.SipHeader(i, "Call-ID").SomeOr(nil)
	if len(id) > 0 && batch.SetCorrelationId(i, id).IsErr() {
		log.Log(log.LevelWarn, "cannot set a correlation id")
	}
}
