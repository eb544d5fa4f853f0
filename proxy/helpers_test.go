package proxy_test

import (
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
)

func duration(d time.Duration) *durationpb.Duration { return durationpb.New(d) }

// waitFor waits until something is so, and fails with what is said when it is not.
func waitFor(t testing.TB, so func() bool, what func() string) {
	t.Helper()
	for end := time.Now().Add(2 * time.Minute); !so(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal(what())
		}
	}
}
