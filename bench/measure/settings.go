package measure

import (
	"errors"
	"flag"
	"strings"
)

// Settings are what every comparison can be told.
type Settings struct {
	Rounds int    // how often each is loaded
	Only   string // the beginnings of the names of those that are; empty: all are
}

// Define defines their flags: how many rounds there are unless it is said, and
// what is compared, such as systems.
func (s *Settings) Define(flags *flag.FlagSet, rounds int, what string) {
	flags.IntVar(&s.Rounds, "rounds", rounds, "how often each of the "+what+" is loaded")
	flags.StringVar(&s.Only, "only", "", "a comma-separated list of "+what+", by the beginning of their names; empty: all")
}

// Parse reads the flags. done says that there is nothing left to do: help was
// asked for.
func (s *Settings) Parse(flags *flag.FlagSet, args []string) (done bool, err error) {
	switch err := flags.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		return true, nil
	case err != nil:
		return false, err
	case s.Rounds < 1:
		return false, errors.New("-rounds must be at least 1")
	}
	return false, nil
}

// Wanted tells whether one of that name takes part.
func (s *Settings) Wanted(name string) bool {
	if s.Only == "" {
		return true
	}
	for prefix := range strings.SplitSeq(s.Only, ",") {
		if strings.HasPrefix(strings.ToLower(name), strings.ToLower(strings.TrimSpace(prefix))) {
			return true
		}
	}
	return false
}

// Verdict says whether a promise was kept.
func Verdict(met bool) string {
	if met {
		return "met"
	}
	return "MISSED"
}
