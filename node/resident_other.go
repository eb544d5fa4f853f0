//go:build !linux

package node

// shedProgram does nothing: no other system says where its pages are.
func shedProgram() {}
