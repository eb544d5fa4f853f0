package measure

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
)

// WeirBinary is where `make build` leaves Weir.
func WeirBinary() (string, error) {
	binary, err := filepath.Abs(filepath.Join("bin", "weir"))
	if err != nil {
		return "", err
	}
	if _, err := os.Stat(binary); err != nil {
		return "", errors.New("bin/weir is not built (make build)")
	}
	return binary, nil
}

// WeirReady is nil once a process of Weir has said that it is, for [Process.Until].
func (p *Process) WeirReady() error {
	printed, err := os.ReadFile(p.Log)
	if err == nil && !bytes.Contains(printed, []byte("weir: ready\n")) {
		err = errors.New("it is not ready")
	}
	return err
}
