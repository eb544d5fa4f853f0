package freeport

import (
	"fmt"
	"net"
	"testing"
)

func TestNoPortIsGivenTwice(t *testing.T) {
	seen := map[int]bool{}
	for range 200 {
		port := Port(t)
		if seen[port] {
			t.Fatalf("%d was given twice", port)
		}
		seen[port] = true
	}
}

func TestPortIsFreedWithItsTest(t *testing.T) {
	var port int
	t.Run("holder", func(t *testing.T) { port = Port(t) })
	l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
}
