package http1_test

import (
	"testing"

	"github.com/weirmesh/weir/proxy/exchange"
	"github.com/weirmesh/weir/proxy/http1"
)

// Whatever a method, a path and a host were changed to: what CheckRequest lets
// pass is one request on the wire, read back as the same, and all that a codec
// reads passes it.
func FuzzCheckRequest(f *testing.F) {
	for _, s := range [][3]string{
		{"GET", "/p?q=%zz", "a:80"}, {"OPTIONS", "*", "[::1]"}, {"POST", "/ HTTP/1.1\r\nX: y", "a"}, {"CONNECT", "/", "a"},
		{"G T", "/", "a\r\nX: y"}, {"GET", "", ""}, {"GET", "/#", "a,b"}, {"GET", "//b/", "u@a"}, {"GET", "*", "a"},
	} {
		f.Add([]byte(s[0]), []byte(s[1]), []byte(s[2]))
	}
	f.Fuzz(func(t *testing.T, method, path, host []byte) {
		var x exchange.Exchange
		x.Request.Method, x.Request.Path, x.Request.Authority = method, path, host
		bad := http1.CheckRequest(&x.Request)
		written := http1.AppendRequest(nil, &x.Request)
		var again exchange.Exchange
		var framing http1.Framing
		n, err := http1.ParseRequest(written, &again, &framing)
		r := &again.Request
		same := err == nil && n == len(written) && string(r.Method) == string(method) && string(r.Path) == string(path) &&
			string(r.Authority) == string(host)
		switch {
		case bad == nil && len(written) > http1.MaxRequestLine: // its length is not looked at
		case bad == nil && string(path) == "*" && string(method) != "OPTIONS": // nor whether it makes sense
		case bad == nil && !same:
			t.Fatalf("%q passes, and is read back as %q: %v", written, r.Method, err)
		case bad != nil && same && n > 0:
			t.Fatalf("%q is read as it was written, and does not pass: %v", written, bad)
		}
	})
}
