//go:build !weir_kind14

package node

// newestKind is the newest kind of command that this build understands; 0: all that
// there are. Builds with the tag weir_kind14 stand for an earlier version, in tests of
// upgrades.
const newestKind = 0
