package store

import (
	"fmt"
	"testing"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
)

func withID(id string, c *weirv1.Command) *weirv1.Command {
	c.Id = id
	return c
}

func TestCommandThatArrivesTwiceIsDoneOnce(t *testing.T) {
	b := open(t)
	b.put(service("ink"))
	command := withID("one", transact([]*weirv1.Resource{service("books")}, ref("Service", "ink")))
	first := accepted(t, b.entry(command)[0])
	b.put(service("books", "v1"), service("ink"))
	for range 2 {
		second := accepted(t, b.entry(command)[0])
		if second.Revision != first.Revision || second.Results[0].Outcome != weirv1.ApplyResult_CREATED || second.Results[1].Outcome != weirv1.ApplyResult_DELETED {
			t.Fatalf("the repeat's result is %v", second)
		}
		requireSame(t, b.get(ref("Service", "books")), second.Results[0].Resource)
		if len(b.get(ref("Service", "books")).GetService().Spec.Subsets) != 1 || b.View().Len() != 2 {
			t.Fatal("the repeat was done")
		}
		b.reopen() // remembered by the file, too
	}
}

func TestOtherCommandsAreRemembered(t *testing.T) {
	b := open(t)
	create := withID("create", putValue("t", "k", "v"))
	create.GetPutValue().MustNotExist = true
	remove := withID("remove", deleteValue("t", "k", true))
	for range 2 {
		accepted(t, b.entry(create)[0])
	}
	for range 2 {
		accepted(t, b.entry(remove)[0])
	}
	requireValues(t, b, "t", map[string]string{})
}

func TestRefusedCommandIsDecidedAnew(t *testing.T) {
	b := open(t)
	command := withID("one", transact([]*weirv1.Resource{route("r", "public")}))
	requireRefused(t, b.entry(command)[0], `NOT_FOUND Route r: spec.parentRefs[0].name: there is no Gateway public`)
	b.put(gateway("public"))
	accepted(t, b.entry(command)[0])
}

func TestIDOfAnotherCommand(t *testing.T) {
	b := open(t)
	accepted(t, b.entry(withID("one", transact([]*weirv1.Resource{service("a")})))[0])
	requireRefused(t, b.entry(withID("one", transact([]*weirv1.Resource{service("a"), service("b")})))[0],
		`CONFLICT Command one: another command has had this id`)
}

func TestTheOldestCommandsAreForgotten(t *testing.T) {
	b := open(t)
	const batch = 1024
	accepted(t, b.entry(withID("first", putValue("t", "first", "1")))[0])
	for i := 0; i < remembered; i += batch {
		var commands []*weirv1.Command
		for j := range batch {
			commands = append(commands, withID(fmt.Sprint(i+j), putValue("t", "k", "v")))
		}
		b.entry(commands...)
	}
	accepted(t, b.entry(deleteValue("t", "first", true))[0])
	accepted(t, b.entry(withID("first", putValue("t", "first", "2")))[0])
	if value, _ := b.View().Value("t", "first"); string(value) != "2" {
		t.Errorf("value is %q: the first command is still remembered", value)
	}
	if len(b.memory.byID) != remembered {
		t.Errorf("%d commands are remembered, want %d", len(b.memory.byID), remembered)
	}
}

// A change is repeated the same whatever kind of command asks for it.
func TestEachKindOfChangeIsDoneOnce(t *testing.T) {
	for name, command := range map[string]*weirv1.Command{
		"create": create(service("books")),
		"versions": {Action: &weirv1.Command_TransactVersions{TransactVersions: &weirv1.Transact{
			Puts: []*weirv1.Resource{service("books")}}}},
	} {
		t.Run(name, func(t *testing.T) {
			b := open(t)
			withID("one", command)
			first := accepted(t, b.entry(command)[0])
			second := accepted(t, b.entry(command)[0])
			requireSame(t, first, second)
			if len(second.Results) != 1 || second.Results[0].Outcome != weirv1.ApplyResult_CREATED {
				t.Errorf("the repeat's result is %v", second)
			}
		})
	}
}
