//go:build !weir_kind14 && !weir_kind16 && !weir_kind18

package node

// newestKind is the newest kind of command that this build understands; 0: all that
// there are. Builds with the tags weir_kind14, 16 and 18 stand for earlier versions, in
// tests of upgrades: before what only later versions declare, before limits and usage, and
// after these.
const newestKind = 0
