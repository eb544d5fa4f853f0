//go:build !wasip1

package sdk

// Outside of a sandbox nobody calls in: a plugin that is built natively, for
// its tests, registers for nothing.
func register(Plugin) {}

// onTheFloor is the sandbox whose method runs: see [VM.Run].
var onTheFloor *VM

func running() *VM { return onTheFloor }

// Run calls f, which makes callbacks of the sandbox. It is for package policytest,
// where a program has many sandboxes, which take turns.
func (vm *VM) Run(f func()) {
	onTheFloor = vm
	defer func() { onTheFloor = nil }()
	f()
}
