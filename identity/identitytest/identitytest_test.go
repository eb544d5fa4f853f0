package identitytest

import (
	"errors"
	"strconv"
	"sync"
	"testing"

	"github.com/weirmesh/weir/identity/record"
)

func TestRecords(t *testing.T) { Suite(t, NewRecords()) }

func TestUpdateLosesNothing(t *testing.T) {
	s := NewRecords()
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() {
			for range 50 {
				err := record.Update(t.Context(), s, "t", "n", func(was []byte) ([]byte, error) {
					n, _ := strconv.Atoi(string(was))
					return []byte(strconv.Itoa(n + 1)), nil
				})
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	group.Wait()
	if value, _ := s.Value("t", "n"); string(value) != "400" {
		t.Fatalf("400 updates made %s", value)
	}
	s.Before(func([]record.Change) error { return record.ErrConflict })
	err := record.Update(t.Context(), s, "t", "n", func([]byte) ([]byte, error) { return nil, nil })
	if !errors.Is(err, record.ErrConflict) {
		t.Fatalf("for ever too late: %v", err)
	}
}
