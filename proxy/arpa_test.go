package proxy

import "testing"

func TestReversedAddress(t *testing.T) {
	for name, want := range map[string]string{
		"1.2.0.192.in-addr.arpa":  "192.0.2.1",
		"1.2.0.192.IN-ADDR.ARPA.": "192.0.2.1",
		"1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa": "2001:db8::1",
		"shop.example":              "",
		"in-addr.arpa":              "",
		"2.0.192.in-addr.arpa":      "",
		"300.2.0.192.in-addr.arpa":  "",
		"1.0.0.2.ip6.arpa":          "",
		"x.2.0.192.in-addr.arpa":    "",
		"1.2.0.192.5.in-addr.arpa":  "",
		"10.0.0.0.0.0.0.0.ip6.arpa": "",
	} {
		if got := reversedAddress(name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
}
