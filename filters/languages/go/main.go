// Ties filter.go to the host's calls. There is nothing to change here.

package main

import (
	callbacks "filter/bindings/export_hep_filter_callbacks"
	_ "filter/bindings/wit_exports"
)

func init() { callbacks.Register(start, onBatch) }

// The host never calls it, and Go wants one.
func main() {}
