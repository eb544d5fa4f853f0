package sdk

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// decode is step by step what Define promises.
func decode[C any](config []byte) (C, error) {
	var c C
	if d, ok := any(&c).(interface{ Default() }); ok {
		d.Default()
	}
	if len(bytes.TrimSpace(config)) > 0 {
		dec := json.NewDecoder(bytes.NewReader(config))
		dec.DisallowUnknownFields()
		if err := dec.Decode(&c); err != nil {
			return c, fmt.Errorf("read configuration: %w", err)
		}
		if _, err := dec.Token(); !errors.Is(err, io.EOF) {
			return c, errors.New("read configuration: there is something behind its end")
		}
	}
	// *C has C's methods too.
	if v, ok := any(&c).(interface{ Validate() error }); ok {
		if err := v.Validate(); err != nil {
			return c, fmt.Errorf("check configuration: %w", err)
		}
	}
	return c, nil
}
