//go:build weir_kind16

package node

const newestKind = 16
