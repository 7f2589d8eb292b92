package outbox

// arrivals are the ids of events that wait for their routes, by customer: they take
// turns, so that many of one do not delay another's.
type arrivals struct {
	waiting map[string][]string
	turns   []string // customers that have some
}

func (a *arrivals) push(customer, id string) {
	if a.waiting == nil {
		a.waiting = map[string][]string{}
	}
	if len(a.waiting[customer]) == 0 {
		a.turns = append(a.turns, customer)
	}
	a.waiting[customer] = append(a.waiting[customer], id)
}

// pop returns the next one; false: there is none.
func (a *arrivals) pop() (id string, ok bool) {
	if len(a.turns) == 0 {
		return "", false
	}
	customer := a.turns[0]
	queue := a.waiting[customer]
	a.turns = a.turns[1:]
	if len(queue) > 1 {
		a.waiting[customer], a.turns = queue[1:], append(a.turns, customer)
	} else {
		delete(a.waiting, customer)
	}
	return queue[0], true
}

// all returns them in the order of each customer's.
func (a *arrivals) all() []string {
	var ids []string
	for _, customer := range a.turns {
		ids = append(ids, a.waiting[customer]...)
	}
	return ids
}
