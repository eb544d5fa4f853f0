//go:build weir_kind18

package node

const newestKind = 18
