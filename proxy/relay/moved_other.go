//go:build !linux

package relay

import "net"

// moved is not known here: what has been counted is all there is.
func moved(net.Conn) int64 { return 0 }
