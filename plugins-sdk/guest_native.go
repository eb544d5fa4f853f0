//go:build !wasip1

package sdk

// Outside of a sandbox nobody calls in: a plugin that is built natively, for
// its tests, registers for nothing.
func register(Plugin) {}
