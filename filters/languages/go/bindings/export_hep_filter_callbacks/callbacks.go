// Package export_hep_filter_callbacks stands between the generated code, which asks for a package of this name, and
// filter.go. It is written by hand.
package export_hep_filter_callbacks

import (
	"fmt"

	"filter/bindings/hep_filter_log"
	"filter/bindings/hep_filter_packets"
	"filter/bindings/hep_filter_types"

	witRuntime "go.bytecodealliance.org/pkg/wit/runtime"
	witTypes "go.bytecodealliance.org/pkg/wit/types"
)

var (
	start   func() error
	onBatch func(*hep_filter_packets.Batch) []hep_filter_types.Verdict
)

// Register says which functions of the filter the host's calls go to.
func Register(s func() error, b func(*hep_filter_packets.Batch) []hep_filter_types.Verdict) {
	start, onBatch = s, b
}

// Init is what the generated code calls for `init`.
func Init() witTypes.Result[witTypes.Unit, string] {
	defer done()
	if err := start(); err != nil {
		return witTypes.Err[witTypes.Unit, string](err.Error())
	}
	return witTypes.Ok[witTypes.Unit, string](witTypes.Unit{})
}

// OnBatch is what the generated code calls for `on-batch`.
func OnBatch(batch *hep_filter_packets.Batch) []hep_filter_types.Verdict {
	defer done()
	// The host lends the batch for the call: to keep it is a trap.
	defer batch.Drop()
	return onBatch(batch)
}

// done ends a call. A panic would lose its text, for Go writes it to a stderr that is not there: it goes to the
// gateway's log, and the call then fails as it should.
func done() {
	if cause := recover(); cause != nil {
		hep_filter_log.Log(hep_filter_log.LevelError, fmt.Sprint("panic: ", cause))
		panic(cause)
	}
	// What the host has sent in this call is pinned until here, and from now on garbage like any other.
	witRuntime.Unpin()
}
