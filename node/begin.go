package node

import (
	"errors"
	"fmt"
)

// begins says in the words of the flags how a server without data is to begin;
// empty: it was not said.
func (s ServerConfig) begins() string {
	switch {
	case s.Bootstrap:
		return "--bootstrap"
	case s.BootstrapExpect > 0:
		return "--bootstrap-expect"
	case len(s.Join) > 0:
		return "--join"
	}
	return ""
}

// validateBeginning: there is one way to begin. Founders of one cluster need to
// find each other, so --bootstrap-expect goes with --join.
func (s ServerConfig) validateBeginning() error {
	var errs []error
	if s.Bootstrap && (s.BootstrapExpect != 0 || len(s.Join) > 0) {
		errs = append(errs, errors.New("a server begins in one way: with --bootstrap alone, or with --bootstrap-expect, or with --join"))
	}
	if s.BootstrapExpect < 0 {
		errs = append(errs, fmt.Errorf("a cluster cannot be founded by %d servers", s.BootstrapExpect))
	}
	if s.BootstrapExpect > 1 && len(s.Join) == 0 {
		errs = append(errs, fmt.Errorf("to found a cluster of %d servers, say where they are with --join", s.BootstrapExpect))
	}
	for _, address := range s.Join {
		errs = append(errs, checkAddress("join", address))
	}
	if s.Advertise != "" {
		errs = append(errs, checkAddress("advertise", s.Advertise))
	}
	return errors.Join(errs...)
}

// beginning is asked of a server that has no data: those that have go on.
func (s ServerConfig) beginning() error {
	switch {
	case s.begins() == "":
		return errors.New("this server is new: say how it begins, with --bootstrap (the first of a cluster), --bootstrap-expect N, or --join ADDRESS")
	case s.begins() == "--join" && s.Token == "":
		return errors.New("to join, give a token (weir join-token create --role server)")
	case s.Bootstrap, s.BootstrapExpect == 1:
		return nil
	}
	return fmt.Errorf("a cluster of several servers: %w", errors.ErrUnsupported)
}
