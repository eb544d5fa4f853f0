//go:build weir_kind14

package node

const newestKind = 14
