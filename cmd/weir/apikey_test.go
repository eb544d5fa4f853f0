package main

import (
	"testing"
	"time"
)

// When a key ends is written as a time, or as how far that is away.
func TestParseExpiry(t *testing.T) {
	now := time.Date(2026, 12, 1, 12, 0, 0, 0, time.UTC)
	for text, want := range map[string]string{
		"12h": "2026-12-02T00:00:00Z", "90d": "2027-03-01T12:00:00Z", "8w": "2027-01-26T12:00:00Z",
		"2027-01-31": "2027-01-31T00:00:00Z", "2027-01-31T08:00:00+01:00": "2027-01-31T07:00:00Z",
		"": "", "0": "", "0s": "", "-1d": "", "d": "", "90": "", "1dd": "", "1.5d": "", "1d2h": "", "999999d": "", "soon": "", "31.1.2027": "",
	} {
		got, err := parseExpiry(text, now)
		if (err == nil) != (want != "") || err == nil && got.UTC().Format(time.RFC3339) != want {
			t.Errorf("%q: got %v, %v", text, got, err)
		}
	}
}
