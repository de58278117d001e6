%%% The way from the users' processes to the source: they hand an event over and
%%% never wait, and what the source cannot take in time is dropped and counted.
-module(mod_event_feed_intake).

-export([open/3, limits/3, close/0, tell/1, taken/2, losses/1, counted/1,
	 count_ignored/0, count_unnamed/1, belongs_to/1]).

-include("xmpp.hrl").
-include("mod_event_feed.hrl").

%% What is counted.
-define(QUEUED, 1).
-define(QUEUED_BYTES, 2).
-define(LOST, 3).
-define(IGNORED, 4).
-define(UNNAMED, 5).

-record(intake, {component :: binary(),
		 counters :: atomics:atomics_ref(),
		 max_events :: pos_integer(),
		 max_bytes :: pos_integer()}).

%% open lets events in; the source calls it when it starts. Events that an
%% earlier source has not taken are forgotten with its mailbox.
-spec open(binary(), pos_integer(), pos_integer()) -> atomics:atomics_ref().
open(Component, MaxEvents, MaxBytes) ->
    Counters = atomics:new(5, [{signed, true}]),
    put_term(Component, Counters, MaxEvents, MaxBytes),
    Counters.

-spec limits(binary(), pos_integer(), pos_integer()) -> ok.
limits(Component, MaxEvents, MaxBytes) ->
    #intake{counters = Counters} = persistent_term:get(?MODULE),
    put_term(Component, Counters, MaxEvents, MaxBytes).

put_term(Component, Counters, MaxEvents, MaxBytes) ->
    persistent_term:put(?MODULE, #intake{component = Component, counters = Counters,
					 max_events = MaxEvents, max_bytes = MaxBytes}).

-spec close() -> ok.
close() ->
    _ = persistent_term:erase(?MODULE),
    ok.

%% tell hands an event over.
-spec tell(#fact{}) -> ok.
tell(Fact) ->
    case persistent_term:get(?MODULE, undefined) of
	#intake{} = Intake -> tell(Fact, mod_event_feed_wire:size_of(Fact), Intake);
	undefined -> ok
    end.

tell(Fact, Size, #intake{counters = Counters} = Intake) ->
    Queued = atomics:add_get(Counters, ?QUEUED, 1),
    Bytes = atomics:add_get(Counters, ?QUEUED_BYTES, Size),
    if Queued =< Intake#intake.max_events, Bytes =< Intake#intake.max_bytes + Size ->
	    gen_server:cast(mod_event_feed_source, {fact, Size, Fact});
       Fact#fact.session /= none ->
	    %% The table of sessions must stay true even so.
	    Bare = Fact#fact{stanza = none},
	    BareSize = mod_event_feed_wire:size_of(Bare),
	    atomics:sub(Counters, ?QUEUED_BYTES, Size - BareSize),
	    gen_server:cast(mod_event_feed_source, {lost, BareSize, Bare});
       true ->
	    taken(Size, Counters),
	    atomics:add(Counters, ?LOST, 1)
    end.

%% taken says that the source has an event, or that nobody will have it.
-spec taken(non_neg_integer(), atomics:atomics_ref()) -> ok.
taken(Size, Counters) ->
    atomics:sub(Counters, ?QUEUED, 1),
    atomics:sub(Counters, ?QUEUED_BYTES, Size).

%% losses returns how many events were dropped since it was asked last.
-spec losses(atomics:atomics_ref()) -> non_neg_integer().
losses(Counters) ->
    case atomics:get(Counters, ?LOST) of
	0 -> 0;
	_ -> atomics:exchange(Counters, ?LOST, 0)
    end.

%% count_ignored counts a stanza that asks for what its sender may not have.
-spec count_ignored() -> ok.
count_ignored() -> count(?IGNORED, 1).

%% count_unnamed counts members of a room that no event has room for.
-spec count_unnamed(pos_integer()) -> ok.
count_unnamed(N) -> count(?UNNAMED, N).

count(Counter, N) ->
    case persistent_term:get(?MODULE, undefined) of
	#intake{counters = Counters} -> atomics:add(Counters, Counter, N);
	undefined -> ok
    end.

%% counted returns what was counted since it was asked last.
-spec counted(atomics:atomics_ref()) -> #{ignored | unnamed => non_neg_integer()}.
counted(Counters) ->
    #{ignored => atomics:exchange(Counters, ?IGNORED, 0), unnamed => atomics:exchange(Counters, ?UNNAMED, 0)}.

%% belongs_to says whether a domain is the component's.
-spec belongs_to(binary()) -> boolean().
belongs_to(Domain) ->
    case persistent_term:get(?MODULE, undefined) of
	#intake{component = Domain} -> true;
	_ -> false
    end.
