%%% Messages: which of them make events, and of which kind.
%%%
%%% A message that passes user_send_packet is sent: by a session, or by the server's API
%%% in a user's name. It carries, in its metadata, whom it was reported for, on all nodes
%%% of a cluster. What reaches the sessions of a local user without having been reported
%%% for him is received: from elsewhere, from a room, from the server itself, or from a
%%% component or a service of the server that writes in a user's name.
-module(mod_event_feed_messages).

-export([start/1, stop/1, handing_over/0, handed_over/0, of_component/0, is_reportable/1, contact/2]).
-export([user_send/1, about_to_receive/1, offline/1]).

-include("xmpp.hrl").

%% Marks, in a session's process, that stored messages are being handed over.
-define(HANDING_OVER, mod_event_feed_handing_over).
%% In the process that sends for a user who has no session there: what it sends.
-define(INJECTED, mod_event_feed_injected).
%% Marks the process of a component's connection.
-define(COMPONENT, mod_event_feed_component).

-spec start(binary()) -> ok.
start(Host) ->
    _ = [ejabberd_hooks:add(Hook, Host, ?MODULE, Function, Seq) || {Hook, Function, Seq} <- hooks()],
    ok.

-spec stop(binary()) -> ok.
stop(Host) ->
    _ = [ejabberd_hooks:delete(Hook, Host, ?MODULE, Function, Seq) || {Hook, Function, Seq} <- hooks()],
    ok.

%% Each comes after the hook of ejabberd's own modules that decides about the message:
%% mod_mam (50, 88), mod_carboncopy (89), mod_offline (50) and mod_push (55).
hooks() ->
    [{user_send_packet, user_send, 90},
     {sm_receive_packet, about_to_receive, 90},
     {offline_message_hook, offline, 90}].

%% handing_over says that this process, a session's, routes stored messages from now on.
-spec handing_over() -> ok.
handing_over() ->
    put(?HANDING_OVER, true),
    ok.

-spec handed_over() -> ok.
handed_over() ->
    _ = erase(?HANDING_OVER),
    ok.

%% of_component says that this process is a component's: what it sends in a user's name
%% is not of the API.
-spec of_component() -> ok.
of_component() ->
    put(?COMPONENT, true),
    ok.

%% is_reportable says whether it is to be reported that a session has not acknowledged a
%% message.
-spec is_reportable(message()) -> boolean().
is_reportable(#message{type = error}) -> false;
is_reportable(#message{meta = #{carbon_copy := true}}) -> false;
is_reportable(#message{meta = #{?MODULE := stored}}) -> false;
is_reportable(Message) -> not (is_archived(Message) orelse is_notification(Message)).

user_send({#message{type = Type, from = #jid{luser = LUser}, to = #jid{}} = Message, State} = Acc)
  when Type /= error, LUser /= <<>> ->
    case State of
	#{sid := _} ->
	    _ = erase(?HANDING_OVER),
	    sent_by_session(Message, State);
	_ ->
	    _ = [injected(Message) || get(?COMPONENT) == undefined, not is_notification(Message)],
	    Acc
    end;
user_send(Acc) ->
    Acc.

%% The server refuses what the sender's own list blocks.
sent_by_session(#message{from = #jid{lserver = LServer}} = Message, State) ->
    case ejabberd_hooks:run_fold(privacy_check_packet, LServer, allow, [State, Message, out]) of
	allow ->
	    report_sent(Message),
	    {reported(Message), State};
	deny ->
	    {Message, State}
    end.

%% The server's API routes its own copy of the message, in this process.
injected(Message) ->
    report_sent(Message),
    put(?INJECTED, identity(Message)).

report_sent(#message{from = From, to = To} = Message) ->
    More = case not is_user(To) orelse reaches(Message) of
	       true -> contact_of_absent(Message, To);
	       false -> [{<<"reached">>, <<"false">>}]
	   end,
    mod_event_feed:tell(<<"message-sent">>, From#jid.lserver, From, [{<<"to">>, jid:encode(To)} | More], Message).

%% contact is the attribute that says so if the sender of a chat message is no contact of a
%% local user. Where that cannot be told there is none. A contact has a subscription, was
%% asked for one, or is in a group.
-spec contact(message(), jid()) -> [{binary(), binary()}].
contact(#message{type = chat, from = #jid{luser = LUser, lserver = LServer}}, #jid{luser = LUser, lserver = LServer}) ->
    [];
contact(#message{type = chat, from = From}, #jid{luser = LUser, lserver = LServer}) ->
    case gen_mod:is_loaded(LServer, mod_roster)
	andalso ejabberd_hooks:run_fold(roster_get_jid_info, LServer, {none, none, []}, [LUser, LServer, From]) of
	{none, Ask, []} when Ask == none; Ask == in -> [{<<"contact">>, <<"false">>}];
	_ -> []
    end;
contact(_Message, _User) ->
    [].

%% The same where it costs little: of a user who has a session nobody needs it.
contact_of_absent(Message, #jid{luser = LUser, lserver = LServer} = To) ->
    case is_user(To) andalso ejabberd_sm:get_session_sids(LUser, LServer) == [] of
	true -> contact(Message, To);
	false -> []
    end.

is_user(#jid{luser = LUser, lserver = LServer}) ->
    LUser /= <<>> andalso mod_event_feed:is_served(LServer).

%% reaches says whether a session of its recipient takes a message, or it is stored,
%% as far as the server knows before. It bounces what a privacy list keeps from him and
%% what is for an account that does not exist.
reaches(#message{to = #jid{luser = LUser, lserver = LServer} = To} = Message) ->
    Sessions = ejabberd_sm:get_session_sids(LUser, LServer),
    (Sessions /= [] orelse ejabberd_auth:user_exists(LUser, LServer))
	andalso is_taken(Message, Sessions)
	andalso allow == ejabberd_hooks:run_fold(privacy_check_packet, LServer, allow, [To, Message, in]).

%% Messages of these types are not stored.
is_taken(#message{type = Type}, []) when Type == headline; Type == groupchat ->
    false;
is_taken(#message{type = headline, to = #jid{lresource = <<>>} = To}, _Sessions) ->
    ejabberd_sm:get_user_present_resources(To#jid.luser, To#jid.lserver) /= [];
is_taken(_Message, _Sessions) ->
    true.

reported(#message{to = To} = Message) ->
    xmpp:put_meta(Message, ?MODULE, jid:tolower(To)).

identity(#message{from = From, to = To, id = ID, type = Type}) ->
    {jid:tolower(From), jid:tolower(To), ID, Type}.

%% A message is about to be routed to the sessions of a local user, however many
%% there are. What is routed again, after a session has ended without taking it,
%% carries its mark.
about_to_receive(#message{type = Type, to = To} = Message) when Type /= error ->
    case get(?HANDING_OVER) of
	true ->
	    xmpp:put_meta(Message, ?MODULE, stored);
	undefined ->
	    case is_new(Message) of
		true ->
		    mod_event_feed:tell(<<"message-received">>, To#jid.lserver, To,
					[{<<"to">>, jid:encode(To)} | contact_of_absent(Message, To)], Message),
		    reported(Message);
		false ->
		    Message
	    end
    end;
about_to_receive(Acc) ->
    Acc.

is_new(#message{meta = #{?MODULE := stored}}) ->
    false;
is_new(#message{meta = #{carbon_copy := true}}) ->
    false;
is_new(#message{to = To, meta = Meta} = Message) ->
    maps:get(?MODULE, Meta, none) /= jid:tolower(To)
	andalso not is_injected(Message)
	andalso not is_archived(Message)
	andalso not is_handed_over(Message)
	andalso not is_notification(Message)
	andalso reaches(Message).

is_injected(Message) ->
    case get(?INJECTED) of
	undefined ->
	    false;
	Injected ->
	    Injected == identity(Message) andalso erase(?INJECTED) == Injected
    end.

%% An answer from an archive (XEP-0313) has nothing but the result: of this server, or
%% of a room elsewhere.
is_archived(#message{body = [], sub_els = Els}) ->
    lists:any(fun is_result/1, Els);
is_archived(_Message) ->
    false.

is_result(#mam_result{}) -> true;
is_result(#xmlel{name = <<"result">>} = El) -> fxml:get_tag_attr_s(<<"xmlns">>, El) == ?NS_MAM_2;
is_result(_El) -> false.

%% The server sends these in the name of a user to all who follow what the user
%% publishes (XEP-0163). The component makes no event of them.
is_notification(#message{type = headline, body = [], from = #jid{lresource = <<>>} = From} = Message) ->
    is_user(From) andalso xmpp:has_subtag(Message, #ps_event{});
is_notification(_Message) ->
    false.

%% What a session of the recipient routes to him in the name of another is a stored
%% message that he has asked for (XEP-0013).
is_handed_over(#message{from = #jid{luser = LUser, lserver = LServer}, to = #jid{luser = LUser, lserver = LServer}}) ->
    false;
is_handed_over(#message{to = #jid{luser = LUser, lserver = LServer}}) ->
    lists:keymember(self(), 2, ejabberd_sm:get_session_sids(LUser, LServer)).

%% Nobody was there to take a message. mod_offline and mod_mam say what became
%% of it.
offline({Stored, #message{type = Type, to = To} = Message} = Acc)
  when Stored == offlined; Stored == archived ->
    _ = [mod_event_feed:tell(<<"message-offline">>, To#jid.lserver, jid:remove_resource(To), contact(Message, To), Message) || Type /= error],
    Acc;
offline(Acc) ->
    Acc.
